/** Reads the configuration as `serve` would and tells what is wrong with it, instead of stopping there. */

import { Device } from "../../backend/device.ts";
import type { ConfigFile } from "../../config/config-file.ts";
import { explainSettings } from "../../config/explain.ts";
import { type Environment, resolveSettings } from "../../config/resolve.ts";
import type { Settings } from "../../config/settings.ts";
import { showSource } from "../../config/sources.ts";
import { threadPlacement } from "../../config/thread-placement.ts";
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
    const checks = [
      summary(rows.length, notInEffect.length),
      ...others.map(warning),
      ...pinning(resolution.settings),
    ];
    return { checks, notInEffect };
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

/** Pins threads as a model would; nothing is said where nobody asks for it or no system can do it. */
function pinning(settings: Settings): DoctorReport["checks"] {
  const name = "thread_pinning";
  const { processorMask, processorAffinity } = settings;
  if ((processorMask === undefined && !processorAffinity) || process.platform !== "linux") return [];
  const { threads, processors } = threadPlacement(settings);
  if (processors === undefined) {
    const message = "All cores are equally fast, so CANDLE_CPU_AFFINITY pins no threads.";
    return [{ name, status: "ok", message }];
  }
  const list = processors.join(", ");
  try {
    Device.open({ kind: "cpu", threads, processors }).close();
    const message = `${threads} ${threads === 1 ? "thread" : "threads"} can be pinned to the processors ${list}.`;
    return [{ name, status: "ok", message }];
  } catch (error) {
    if (!(error instanceof MistralError)) throw error;
    return [{ name, status: "error", message: `${error.message}.`, suggestion: "Change CANDLE_CPU_MASK." }];
  }
}

function warning(message: string): DoctorReport["checks"][number] {
  return { name: NAME, status: "warn", message: `${message}.` };
}
