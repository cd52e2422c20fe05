/** Reads the configuration as `serve` would and tells what is wrong with it, instead of stopping there. */

import type { ConfigFile } from "../../config/config-file.ts";
import { explainSettings } from "../../config/explain.ts";
import { type Environment, resolveSettings } from "../../config/resolve.ts";
import { showSource } from "../../config/sources.ts";
import { MistralError } from "../../errors.ts";
import { readConfigFile, readRingConfig } from "../read-config.ts";
import type { DoctorReport } from "./report.ts";

export interface ConfigurationFindings {
  readonly checks: DoctorReport["checks"];
  readonly notInEffect: DoctorReport["not_in_effect"];
}

const NAME = "configuration";

/** @param path of the file of `--config` */
export function configurationChecks(
  path: string | undefined,
  environment: Environment,
): ConfigurationFindings {
  try {
    const file: ConfigFile | undefined =
      path === undefined ? undefined : readConfigFile(path, "flag --config");
    const resolution = resolveSettings("config explain", { environment, file });
    readRingConfig(resolution.settings.ringConfig);
    const rows = explainSettings("config explain", resolution).filter(({ isSet }) => isSet);
    const notInEffect = rows
      .filter((row) => row.notInEffect !== undefined)
      .map(({ key, source, value, notInEffect: because = "" }) => ({
        key,
        source: showSource(source),
        value,
        because,
      }));
    const known = new Set(notInEffect.map(({ source }) => source));
    const others = resolution.warnings.filter(
      (line) => ![...known].some((source) => line.startsWith(source)),
    );
    return { checks: [summary(rows.length, notInEffect.length), ...others.map(warning)], notInEffect };
  } catch (error) {
    if (!(error instanceof MistralError)) throw error;
    return { checks: [{ name: NAME, status: "error", message: error.message }], notInEffect: [] };
  }
}

function summary(set: number, without: number): DoctorReport["checks"][number] {
  const count = `${set} ${set === 1 ? "setting differs" : "settings differ"} from the defaults`;
  if (without === 0) return { name: NAME, status: "ok", message: `The configuration can be used: ${count}.` };
  return {
    name: NAME,
    status: "warn",
    message: `The configuration can be used: ${count}, ${without} of them without effect.`,
    suggestion: "`mistral config explain` prints each with its reason.",
  };
}

function warning(message: string): DoctorReport["checks"][number] {
  return { name: NAME, status: "warn", message: `${message}.` };
}
