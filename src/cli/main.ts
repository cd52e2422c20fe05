/**
 * The commands: parses the command line, decides the settings and hands over to the command that was named, whose
 * code is loaded only then. Set-up must have happened.
 */

import packageJson from "../../package.json" with { type: "json" };
import { resolveSettings } from "../config/resolve.ts";
import { parseCommandLine } from "./command-line.ts";
import { exitWith } from "./failure.ts";

/**
 * Runs a command line (without program and script). A server's promise resolves when it is ready; the process
 * goes on. Throws MistralError when the command fails.
 */
export async function main(commandArguments: readonly string[]): Promise<void> {
  const line = parseCommandLine(commandArguments, packageJson.version);
  if (line.kind === "done") return;
  const resolution = resolveSettings(line.command, line.flags, process.env);
  switch (line.command) {
    case "serve":
      return (await import("./serve/serve.ts")).serve(resolution);
    case "bench":
      return (await import("./bench/bench.ts")).bench(resolution);
    default:
      return line.command satisfies never;
  }
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    exitWith(error);
  }
}
