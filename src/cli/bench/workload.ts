/**
 * Drives a loaded model the way the engine's scheduler would, without the engine: prefill steps as full as the
 * token budget allows, then decode steps of the whole batch. Knows steps and a clock, nothing else.
 */

import type { ModelRunner } from "../../models/step.ts";
import { BenchStep, blocksOf, decode, makeSequences, prefill } from "./bench-step.ts";

export interface Workload {
  /** Sequences that run together. */
  readonly batch: number;
  /** Tokens of context before each prompt, which are computed but not measured. */
  readonly depth: number;
  /** Tokens of each prompt. */
  readonly promptLength: number;
  /** Decode steps, each of which makes one token per sequence. */
  readonly generatedLength: number;
  /** Seed of the prompts' tokens. */
  readonly seed: bigint;
}

export interface RunTimes {
  /** From the first prefill step to the first token of every sequence. */
  readonly prefillSeconds: number;
  /** The decode steps after it. */
  readonly decodeSeconds: number;
}

/** Called where a phase begins; no part of its time but for `beforeDecode`, which is of the prefill. */
export interface PhaseCalls {
  readonly beforePrefill?: () => void;
  readonly beforeDecode?: () => void;
}

/** Tokens of KV cache that a sequence of the workload fills. */
export function tokensPerSequence(workload: Workload): number {
  return workload.depth + workload.promptLength + workload.generatedLength;
}

/** KV blocks that the workload needs, the null block included. */
export function blocksOfWorkload(workload: Workload, blockSize: number): number {
  return blocksOf(workload.batch, tokensPerSequence(workload), blockSize);
}

/**
 * Runs the workload once and times it with `clock` (milliseconds). The runner's limits must have room for it:
 * `batch` sequences and rows in a step, and `blocksOfWorkload` blocks.
 */
export function runWorkload(
  runner: ModelRunner,
  workload: Workload,
  clock: () => number,
  { beforePrefill, beforeDecode }: PhaseCalls = {},
): RunTimes {
  const promptTokens = workload.depth + workload.promptLength;
  const totalTokens = tokensPerSequence(workload);
  const sequences = makeSequences(runner, workload.batch, { promptTokens, totalTokens, seed: workload.seed });
  const step = new BenchStep(runner);
  if (workload.depth > 0) prefill(step, sequences, workload.depth);
  beforePrefill?.();
  const started = clock();
  prefill(step, sequences, promptTokens);
  beforeDecode?.();
  const decodeStarted = clock();
  for (let index = 0; index < workload.generatedLength; index++) decode(step, sequences);
  const ended = clock();
  return { prefillSeconds: (decodeStarted - started) / 1000, decodeSeconds: (ended - decodeStarted) / 1000 };
}
