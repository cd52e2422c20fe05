/**
 * What is measured of one file with one number of threads against one engine, in parts that are measured one after
 * another, and the JSON file that holds it: parts found there are not measured again.
 */

import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import type { Comparison } from "../../../src/cli/bench/against/comparison.ts";

/** `disturbed` is one sequence beside a process that never rests, `calm` everything else. */
export type Part = "calm" | "disturbed";

export interface ReachResult {
  readonly file: string;
  readonly threads: number;
  readonly against: string;
  /** How our products take activations. */
  readonly activations: string;
  /** When the first part was begun. */
  readonly date: string;
  readonly parts: Readonly<Partial<Record<Part, Comparison>>>;
}

/** Where the result of this file, threads, precision and engine lies. */
export function resultPath(
  folder: string,
  { file, threads, against, activations }: Omit<ReachResult, "date" | "parts">,
): string {
  return join(folder, `${basename(file, ".gguf")}.${threads}.${activations}.${against}.json`);
}

/** Undefined where there is none yet. Throws an Error that names a file that holds something else. */
export function readResult(path: string): ReachResult | undefined {
  if (!existsSync(path)) return undefined;
  let result: Partial<ReachResult>;
  try {
    result = JSON.parse(readFileSync(path, "utf8")) as Partial<ReachResult>;
  } catch (error) {
    throw new Error(`${path} is no JSON: ${error instanceof Error ? error.message : error}`);
  }
  if (typeof result.file === "string" && typeof result.threads === "number" && result.parts !== undefined) {
    return result as ReachResult;
  }
  throw new Error(`${path} holds no measurements of reach.ts`);
}

/** Whole or not at all: the next run reads it. */
export function writeResult(path: string, result: ReachResult): void {
  writeFileSync(`${path}.part`, `${JSON.stringify(result, null, 1)}\n`);
  renameSync(`${path}.part`, path);
}
