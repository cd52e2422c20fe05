/** The commands as processes of their own, as a user starts them: run to their end, or served until stopped. */

import { afterEach } from "bun:test";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { PROJECT_ROOT } from "../../src/cli/setup.ts";

const MAIN = join(PROJECT_ROOT, "src/cli/main.ts");
const READY_TIMEOUT_MS = 60_000;

export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ProcessOptions {
  readonly environment?: Readonly<Record<string, string>>;
  /** Working directory. */
  readonly folder?: string;
  readonly input?: string;
}

/** Our own environment with these variables on top. */
export function childEnvironment(
  environment: Readonly<Record<string, string>> = {},
): Record<string, string | undefined> {
  // Bun would keep what it transpiles where XDG_CACHE_HOME says, which a test may set to a relative path.
  return { ...process.env, BUN_RUNTIME_TRANSPILER_CACHE_PATH: "0", ...environment };
}

/** Runs a command line to its end. */
export async function runCommand(
  commandArguments: readonly string[],
  options: ProcessOptions = {},
): Promise<Outcome> {
  const child = Bun.spawn([process.execPath, MAIN, ...commandArguments], {
    cwd: options.folder ?? PROJECT_ROOT,
    env: childEnvironment(options.environment),
    stdin: options.input === undefined ? "ignore" : new Blob([options.input]),
    stdout: "pipe",
    stderr: "pipe",
  });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { status, stdout, stderr };
}

export interface ServingProcess {
  readonly child: Bun.Subprocess<"ignore", "pipe", "pipe">;
  /** What it has logged so far. */
  readonly log: () => string;
  /** Where it is reached. */
  readonly url: string;
}

const running: ServingProcess["child"][] = [];

/** Ends what the test started, however the test ends. */
export function stopServersAfterEach(): void {
  afterEach(async () => {
    for (const child of running.splice(0)) {
      child.kill("SIGKILL");
      await child.exited;
    }
  });
}

/** Starts a command that serves; resolves when its log says it is ready. */
export async function startServing(
  commandArguments: readonly string[],
  options: ProcessOptions = {},
): Promise<ServingProcess> {
  const child = Bun.spawn([process.execPath, MAIN, ...commandArguments], {
    cwd: options.folder ?? PROJECT_ROOT,
    env: childEnvironment(options.environment),
    stdin: "ignore",
    stdout: "pipe",
    stderr: "pipe",
  });
  running.push(child);
  let log = "";
  void (async () => {
    for await (const part of child.stderr.pipeThrough(new TextDecoderStream())) log += part;
  })();
  for (const start = Date.now(); !/ ready +\S/.test(log); await Bun.sleep(10)) {
    if (child.exitCode !== null || Date.now() - start > READY_TIMEOUT_MS) {
      throw new Error(`it does not serve:\n${log}`);
    }
  }
  const url = /OpenAI API +(\S+)\/v1/.exec(log)?.[1];
  if (url === undefined) throw new Error(`no address in the log:\n${log}`);
  return { child, log: () => log, url };
}

/** On a free port of the loopback address. */
export const LOOPBACK = ["--host", "127.0.0.1", "--port", "0"] as const;

export async function post(
  url: string,
  path: string,
  body: unknown,
): Promise<{ status: number; body: unknown }> {
  const response = await fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  return { status: response.status, body: await response.json() };
}

/** Processes whose parent this is (Linux). */
export function childrenOf(parent: number): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((pid) => {
      try {
        const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
          .replace(/^.*\) /, "")
          .split(" ");
        return Number(fields[1]) === parent;
      } catch {
        return false; // it ended while we looked
      }
    });
}

/** Bytes in memory of a process (Linux). */
export function residentBytes(pid: number): number {
  const match = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1] ?? 0) * 1024;
}
