/**
 * Entry of the package scripts: set-up first, then the command. Everything beyond set-up is imported only when
 * the packages it needs are there.
 */

import { join } from "node:path";
import { EngineChild } from "../engine/engine-child.ts";
import { MistralError } from "../errors.ts";
import { exitWith } from "./failure.ts";
import { PROJECT_ROOT, setup } from "./setup.ts";

const commandArguments = process.argv.slice(2);
try {
  if (commandArguments[0] === "build") {
    await build(commandArguments.slice(1));
  } else {
    const { installed } = await setup("native");
    if (installed) process.exitCode = await runInFreshProcess(commandArguments);
    else {
      startEngine(commandArguments);
      await (await import("./main.ts")).main(commandArguments);
    }
  }
} catch (error) {
  exitWith(error);
}

/**
 * The process that loads a model takes as long to get up as this one takes to find out which; until it is told, all
 * that it can be named by is the command line.
 */
function startEngine(words: readonly string[]): void {
  if (words[0] === "run" || words[0] === "serve") EngineChild.startAhead(words.join(" "));
}

async function build(options: readonly string[]): Promise<void> {
  const unknown = options.find((option) => option !== "--all");
  if (unknown !== undefined) {
    throw new MistralError(
      "invalid_configuration",
      `build does not know ${unknown}; it takes --all (every instruction-set level) or nothing (this machine's)`,
    );
  }
  const { resolveSettings } = await import("../config/resolve.ts");
  for (const warning of resolveSettings("build", { environment: process.env }).warnings) {
    process.stderr.write(`warning: ${warning}\n`);
  }
  const levels = options.includes("--all") ? "all" : "native";
  const { installed, built } = await setup(levels);
  if (!installed && !built) process.stderr.write("setup  packages and kernels are up to date\n");
}

/**
 * Bun remembers that a package was missing, so packages installed by this process are out of its reach; the
 * command runs in a child with the same streams. Signals that reach only this process are passed on; those of
 * a terminal (Ctrl-C) reach both by themselves.
 */
async function runInFreshProcess(commandArguments: readonly string[]): Promise<number> {
  const child = Bun.spawn([process.execPath, join(PROJECT_ROOT, "src/cli/main.ts"), ...commandArguments], {
    stdin: "inherit",
    stdout: "inherit",
    stderr: "inherit",
  });
  process.on("SIGTERM", () => child.kill("SIGTERM"));
  process.on("SIGINT", () => {
    if (!process.stdin.isTTY) child.kill("SIGINT");
  });
  return await child.exited;
}
