/** How a command ends when it fails: one clear line for what a person caused, everything known for our own bugs. */

import { MistralError } from "../errors.ts";

const EXIT_FAILED = 1;
/** The command line, a variable or a combination of settings is wrong; nothing was started. */
const EXIT_MISUSED = 2;

/** Prints the failure and ends the process. */
export function exitWith(error: unknown): never {
  if (error instanceof MistralError) {
    process.stderr.write(`error: ${error.message}\n`);
    process.exit(error.code === "invalid_configuration" ? EXIT_MISUSED : EXIT_FAILED);
  }
  const shown = error instanceof Error ? (error.stack ?? error.message) : String(error);
  process.stderr.write(`error: this is a bug in mistral.ts\n${shown}\n`);
  process.exit(EXIT_FAILED);
}
