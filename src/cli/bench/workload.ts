/**
 * Drives a loaded model the way the engine's scheduler would, without the engine: prefill steps as full as the
 * token budget allows, then decode steps of the whole batch. Knows the step layout and a clock, nothing else.
 */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../graph/ops.ts";
import type { ModelRunner } from "../../models/step.ts";

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

interface BenchSequence {
  /** What comes before the prompt included. */
  readonly prompt: Int32Array;
  readonly blocks: Int32Array;
  /** Tokens whose keys and values are stored. */
  length: number;
  /** The token sampled last. */
  next: number;
}

/** Tokens of KV cache that a sequence of the workload fills. */
export function tokensPerSequence(workload: Workload): number {
  return workload.depth + workload.promptLength + workload.generatedLength;
}

/** KV blocks that the workload needs, the null block included. */
export function blocksOfWorkload(workload: Workload, blockSize: number): number {
  return 1 + workload.batch * Math.ceil(tokensPerSequence(workload) / blockSize);
}

/**
 * Runs the workload once and times it with `clock` (milliseconds). The runner's limits must have room for it:
 * `batch` sequences and rows in a step, and `blocksOfWorkload` blocks.
 */
export function runWorkload(runner: ModelRunner, workload: Workload, clock: () => number): RunTimes {
  const sequences = makeSequences(runner, workload);
  const step = new BenchStep(runner);
  const { tokensMax } = runner.limits;
  if (workload.depth > 0) prefill(step, sequences, tokensMax, workload.depth);
  const started = clock();
  prefill(step, sequences, tokensMax, workload.depth + workload.promptLength);
  const decodeStarted = clock();
  for (let index = 0; index < workload.generatedLength; index++) decode(step, sequences);
  const ended = clock();
  return { prefillSeconds: (decodeStarted - started) / 1000, decodeSeconds: (ended - decodeStarted) / 1000 };
}

function makeSequences({ limits }: ModelRunner, workload: Workload): BenchSequence[] {
  const random = mulberry32(Number(BigInt.asUintN(32, workload.seed ^ (workload.seed >> 32n))));
  const blocks = Math.ceil(tokensPerSequence(workload) / limits.blockSize);
  return Array.from({ length: workload.batch }, (_, index) => ({
    prompt: Int32Array.from(
      { length: workload.depth + workload.promptLength },
      () => random() % limits.vocabularySize,
    ),
    blocks: Int32Array.from({ length: blocks }, (_, block) => 1 + index * blocks + block),
    length: 0,
    next: 0,
  }));
}

/**
 * Prompts one after the other up to `end`, cut where a step is full; a prompt's end and the next one's start share a
 * step. Only whole prompts are sampled.
 */
function prefill(step: BenchStep, sequences: readonly BenchSequence[], tokensMax: number, end: number): void {
  let room = tokensMax;
  for (const sequence of sequences) {
    while (sequence.length < end) {
      const until = Math.min(sequence.length + room, end);
      room -= until - sequence.length;
      step.add(sequence, sequence.prompt.subarray(sequence.length, until), until === sequence.prompt.length);
      if (room === 0) {
        step.run();
        room = tokensMax;
      }
    }
  }
  step.run();
}

function decode(step: BenchStep, sequences: readonly BenchSequence[]): void {
  for (const sequence of sequences) step.add(sequence, [sequence.next], true);
  step.run();
}

/** Collects the rows of one step, runs it and hands each sampled token to its sequence. */
class BenchStep {
  readonly #runner: ModelRunner;
  #tokens = 0;
  #sequences = 0;
  readonly #sampled: BenchSequence[] = [];

  constructor(runner: ModelRunner) {
    this.#runner = runner;
    const { inputs } = runner;
    inputs.sequenceStarts[0] = 0;
    inputs.adjustmentStarts.fill(0);
    inputs.samplingParameters.fill(0);
    // Greedy, no log-probabilities, nothing forced: the same for every row of every step.
    for (let row = 0; row < runner.limits.rowsMax; row++) {
      const base = row * SAMPLING_PARAMETER_WORDS;
      inputs.samplingParametersF32[base + SAMPLING_PARAMETER.top_p] = 1;
      inputs.samplingParameters[base + SAMPLING_PARAMETER.logprob_count] = -1;
      inputs.samplingParameters[base + SAMPLING_PARAMETER.forced_token] = -1;
    }
  }

  /** Appends tokens of a sequence; with `sample` the next token is drawn after the last of them. */
  add(sequence: BenchSequence, tokens: ArrayLike<number>, sample: boolean): void {
    const { inputs, limits } = this.#runner;
    for (let index = 0; index < tokens.length; index++) {
      const position = sequence.length + index;
      const block = sequence.blocks[Math.floor(position / limits.blockSize)]!;
      inputs.tokenIds[this.#tokens + index] = tokens[index]!;
      inputs.positions[this.#tokens + index] = position;
      inputs.slotMapping[this.#tokens + index] = block * limits.blockSize + (position % limits.blockSize);
    }
    sequence.length += tokens.length;
    this.#tokens += tokens.length;
    inputs.blockTables.set(sequence.blocks, this.#sequences * limits.blocksPerSequenceMax);
    inputs.contextLengths[this.#sequences] = sequence.length;
    this.#sequences++;
    inputs.sequenceStarts[this.#sequences] = this.#tokens;
    if (!sample) return;
    inputs.logitRows[this.#sampled.length] = this.#tokens - 1;
    this.#sampled.push(sequence);
  }

  /** Runs what was added; nothing when nothing was. */
  run(): void {
    if (this.#tokens === 0) return;
    this.#runner.run(this.#tokens, this.#sequences, this.#sampled.length);
    for (const [row, sequence] of this.#sampled.entries()) sequence.next = this.#runner.outputs.tokens[row]!;
    this.#tokens = 0;
    this.#sequences = 0;
    this.#sampled.length = 0;
  }
}

/** Small seeded generator of unsigned 32-bit numbers (mulberry32). */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}
