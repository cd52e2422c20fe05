/**
 * How far we are ahead: `bench --against` over many files and numbers of threads, one Markdown table of all and a JSON
 * file of each. What a run had no time for the next one measures; what is in the JSON files is not measured again.
 *
 *   bun test/bench/reach.ts --out FOLDER [--minutes 60] [--threads 2,1] [--disturb] FILE.gguf...
 *   bun test/bench/reach.ts --markdown FILE.json...
 */

import { mkdirSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import type { AgainstWork } from "../../src/cli/bench/against/arena.ts";
import type { Comparison } from "../../src/cli/bench/against/comparison.ts";
import { setup } from "../../src/cli/setup.ts";
import { BusyProcess } from "./reach/busy-process.ts";
import { type Part, type ReachResult, readResult, resultPath, writeResult } from "./reach/reach-result.ts";
import { reachTable } from "./reach/reach-table.ts";

const MEASURE = join(import.meta.dir, "reach", "measure.ts");

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    /** Where the JSON files go. */
    out: { type: "string" },
    /** After so long nothing more is begun, and what is under way is ended. */
    minutes: { type: "string", default: "60" },
    threads: { type: "string", default: "2,1" },
    /** How our products take activations: `precise`, `fast`, or both, comma-separated. */
    activations: { type: "string", default: "precise" },
    /** Engines, comma-separated. */
    against: { type: "string", default: "llama.cpp" },
    /** Tokens before those that one sequence generates, besides none; 0 for none alone. */
    depth: { type: "string", default: "2048" },
    sequences: { type: "string", default: "8" },
    prompt: { type: "string", default: "512" },
    generate: { type: "string", default: "64" },
    repetitions: { type: "string", default: "3" },
    /** Also beside one process that never rests. */
    disturb: { type: "boolean", default: false },
    /** Only prints the table of these JSON files. */
    markdown: { type: "boolean", default: false },
  },
});

/** The value of an option, in its bounds. */
function number(
  name: "minutes" | "depth" | "sequences" | "prompt" | "generate" | "repetitions",
  min: number,
): number {
  return checkedNumber(name, options[name], min);
}

function checkedNumber(name: string, text: string, min: number): number {
  const value = Number(text);
  const isWhole = name === "minutes" || Number.isInteger(value);
  if (text.trim() !== "" && isWhole && value >= min) return value;
  throw new Error(`--${name} has the value "${text}"; it takes numbers from ${min}`);
}

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

interface Job {
  readonly file: string;
  readonly threads: number;
  readonly against: string;
  readonly activations: string;
}

class Measurements {
  readonly #deadlineMs: number;
  readonly #depth = number("depth", 0);
  readonly #sequences = number("sequences", 1);
  readonly #prompt = number("prompt", 1);
  readonly #generate = number("generate", 1);
  readonly #repetitions = number("repetitions", 1);

  constructor(minutes: number) {
    this.#deadlineMs = performance.now() + minutes * 60_000;
  }

  /** Measures the parts that the file's JSON lacks; whether all are there then. */
  async complete(folder: string, job: Job): Promise<boolean> {
    const path = resultPath(folder, job);
    let result: ReachResult = readResult(path) ?? { ...job, date: new Date().toISOString(), parts: {} };
    for (const part of this.#parts()) {
      if (this.#holds(result, part)) continue;
      const title = `${job.file}, threads: ${job.threads}, ${job.activations}, against ${job.against}, ${part}`;
      const comparison = await this.#measure(job, part, title);
      if (comparison === undefined) return false;
      result = { ...result, parts: { ...result.parts, [part]: comparison } };
      writeResult(path, result);
    }
    return true;
  }

  #parts(): readonly Part[] {
    return options.disturb ? ["calm", "disturbed"] : ["calm"];
  }

  #work(part: Part): AgainstWork {
    const single = { depth: 0, sequences: 1 };
    if (part === "disturbed") return { prompts: [], cells: [single], wholeProcesses: false };
    const many = { depth: 0, sequences: this.#sequences };
    const deep = { depth: this.#depth, sequences: 1 };
    const cells = [single, ...(many.sequences > 1 ? [many] : []), ...(deep.depth > 0 ? [deep] : [])];
    return { prompts: [this.#prompt], cells, wholeProcesses: true };
  }

  /** A part that lacks something of what is asked for is measured anew. */
  #holds({ parts }: ReachResult, part: Part): boolean {
    const { prompts, cells } = this.#work(part);
    const rows = parts[part]?.rows;
    return (
      rows !== undefined &&
      prompts.every((tokens) => rows.some((row) => row.phase === "prefill" && row.tokens === tokens)) &&
      cells.every(({ depth, sequences }) =>
        rows.some((row) => row.phase === "decode" && row.depth === depth && row.sequences === sequences),
      )
    );
  }

  #flags({ file, threads, against, activations }: Job): readonly string[] {
    const lengths = ["--gen-len", String(this.#generate), "--repetitions", String(this.#repetitions)];
    const how = ["--threads", String(threads), "--activations", activations];
    return ["--against", against, "-f", file, ...how, ...lengths];
  }

  /** Undefined where it failed or there was no time. */
  async #measure(job: Job, part: Part, title: string): Promise<Comparison | undefined> {
    const leftMs = this.#deadlineMs - performance.now();
    if (leftMs <= 0) {
      say(`${title}: no time left`);
      return undefined;
    }
    say(`${title} ...`);
    const startedMs = performance.now();
    const busy = part === "disturbed" ? new BusyProcess(leftMs / 1000) : undefined;
    try {
      const command = [process.execPath, MEASURE, JSON.stringify(this.#work(part)), ...this.#flags(job)];
      const { stdout, stderr, status } = await runBounded(command, leftMs);
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(0);
      if (status === 0) {
        say(`${title}: ${seconds} s`);
        return JSON.parse(stdout) as Comparison;
      }
      const ranOut = performance.now() >= this.#deadlineMs;
      const reason = ranOut ? "ended, no time left" : `status ${status}: ${stderr.trim().split("\n").at(-1)}`;
      say(`${title}: ${reason} after ${seconds} s`);
      return undefined;
    } finally {
      await busy?.end();
    }
  }
}

interface Ended {
  readonly stdout: string;
  readonly stderr: string;
  readonly status: number;
}

/** Runs a program that starts others: after `milliseconds`, or when this one is told to stop, all of them end. */
async function runBounded(command: readonly string[], milliseconds: number): Promise<Ended> {
  const child = Bun.spawn([...command], { stdio: ["ignore", "pipe", "pipe"], detached: true });
  const endAll = (): void => {
    try {
      process.kill(-child.pid, "SIGKILL");
    } catch {
      // They have ended by themselves.
    }
  };
  const stop = (): void => {
    endAll();
    process.exit(130);
  };
  const timer = setTimeout(endAll, milliseconds);
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, stop);
  try {
    const [stdout, stderr, status] = await Promise.all([
      new Response(child.stdout).text(),
      new Response(child.stderr).text(),
      child.exited,
    ]);
    return { stdout, stderr, status };
  } finally {
    clearTimeout(timer);
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, stop);
  }
}

function renderFiles(paths: readonly string[]): void {
  const results = paths.map((path) => {
    const result = readResult(path);
    if (result === undefined) throw new Error(`there is no ${path}`);
    return result;
  });
  process.stdout.write(reachTable(results));
}

/** All files with the first number of threads come first: a run that ends early has something of each. */
function jobsOf(files: readonly string[]): Job[] {
  const threads = options.threads.split(",").map((text) => checkedNumber("threads", text, 1));
  const words = (text: string): string[] => text.split(",").map((word) => word.trim());
  return threads.flatMap((count) =>
    files.flatMap((file) =>
      words(options.activations).flatMap((activations) =>
        words(options.against).map((against) => ({
          file: resolve(file),
          threads: count,
          activations,
          against,
        })),
      ),
    ),
  );
}

async function measureFiles(files: readonly string[], folder: string): Promise<void> {
  const jobs = jobsOf(files);
  const measurements = new Measurements(number("minutes", 0));
  mkdirSync(folder, { recursive: true });
  // Or the first process that is measured would build the kernels.
  await setup("native");
  let incomplete = 0;
  for (const job of jobs) if (!(await measurements.complete(folder, job))) incomplete++;
  process.stdout.write(reachTable(jobs.flatMap((job) => readResult(resultPath(folder, job)) ?? [])));
  if (incomplete === 0) return;
  say(`${incomplete} of ${jobs.length} are not complete; the same command goes on where this one ended`);
  process.exitCode = 1;
}

try {
  if (positionals.length === 0) throw new Error("no file is named");
  if (options.markdown) renderFiles(positionals);
  else if (options.out === undefined) throw new Error("--out FOLDER says where the JSON files go");
  else await measureFiles(positionals, options.out);
} catch (error) {
  say(`error: ${error instanceof Error ? error.message : error}`);
  process.exitCode = 2;
}
