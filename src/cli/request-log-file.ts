/** The file of `--log`, to which servers and conversations append what is asked and answered. */

import { appendFileSync } from "node:fs";
import { MistralError } from "../errors.ts";

const OWNER_ONLY = 0o600;

/** Appends to a file that only its owner may read: it holds what people wrote. Throws invalid_configuration. */
export function requestLogFile(path: string): (block: string) => void {
  const append = (text: string): void => appendFileSync(path, text, { mode: OWNER_ONLY });
  try {
    append("");
  } catch (cause) {
    throw new MistralError(
      "invalid_configuration",
      `--log ${path} cannot be written: ${(cause as Error).message}`,
      {
        parameter: "--log",
        cause,
      },
    );
  }
  return append;
}
