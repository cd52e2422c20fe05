/** Reads the configuration files that flags and variables name. */

import { readFileSync } from "node:fs";
import { type ConfigFile, parseConfigFile } from "../config/config-file.ts";
import { parseRingConfig } from "../config/nodes.ts";
import { MistralError } from "../errors.ts";

/** Reads and checks a configuration file; `by` says who named it. Throws MistralError("invalid_configuration"). */
export function readConfigFile(path: string, by: string): ConfigFile {
  if (!path.endsWith(".toml")) {
    throw new MistralError(
      "invalid_configuration",
      `${by} has the value ${JSON.stringify(path)}; allowed: a path that ends in .toml`,
      {
        parameter: by,
      },
    );
  }
  return parseConfigFile(readNamed(path, by), path);
}

/** Checks the file of RING_CONFIG, where it is set. Throws MistralError("invalid_configuration"). */
export function readRingConfig(path: string | undefined): void {
  if (path !== undefined) parseRingConfig(readNamed(path, "variable RING_CONFIG"), path);
}

function readNamed(path: string, by: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (cause) {
    const reason = (cause as Error).message.replace(/,.*$/, "");
    throw new MistralError("invalid_configuration", `${by} names ${path}, which cannot be read: ${reason}`, {
      parameter: by,
      cause,
    });
  }
}
