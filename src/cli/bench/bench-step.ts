/** Steps of a loaded model as a benchmark drives it: sequences, the rows of a step, greedy sampling, nothing more. */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../graph/ops.ts";
import type { ModelRunner } from "../../models/step.ts";

export interface BenchSequence {
  /** All that is computed before tokens are generated. */
  readonly prompt: Int32Array;
  readonly blocks: Int32Array;
  /** Tokens whose keys and values are stored. */
  length: number;
  /** The token sampled last. */
  next: number;
}

/** Sequences with prompts and blocks of their own; blocks are numbered from 1, block 0 is nobody's. */
export function makeSequences(
  { limits }: ModelRunner,
  count: number,
  shape: { readonly promptTokens: number; readonly totalTokens: number; readonly seed: bigint },
): BenchSequence[] {
  const { promptTokens, totalTokens, seed } = shape;
  const random = mulberry32(Number(BigInt.asUintN(32, seed ^ (seed >> 32n))));
  const blocks = Math.ceil(totalTokens / limits.blockSize);
  return Array.from({ length: count }, (_, index) => ({
    prompt: Int32Array.from({ length: promptTokens }, () => random() % limits.vocabularySize),
    blocks: Int32Array.from({ length: blocks }, (_, block) => 1 + index * blocks + block),
    length: 0,
    next: 0,
  }));
}

/** KV blocks of so many sequences of so many tokens, the null block included. */
export function blocksOf(sequences: number, tokens: number, blockSize: number): number {
  return 1 + sequences * Math.ceil(tokens / blockSize);
}

/**
 * Prompts one after the other up to `end`, cut where a step is full; a prompt's end and the next one's start share a
 * step. Only whole prompts are sampled.
 */
export function prefill(step: BenchStep, sequences: readonly BenchSequence[], end: number): void {
  let room = step.tokensMax;
  for (const sequence of sequences) {
    while (sequence.length < end) {
      const until = Math.min(sequence.length + room, end);
      room -= until - sequence.length;
      step.add(sequence, sequence.prompt.subarray(sequence.length, until), until === sequence.prompt.length);
      if (room === 0) {
        step.run();
        room = step.tokensMax;
      }
    }
  }
  step.run();
}

/** A token more of each sequence. */
export function decode(step: BenchStep, sequences: readonly BenchSequence[]): void {
  for (const sequence of sequences) step.add(sequence, [sequence.next], true);
  step.run();
}

/** Collects the rows of one step, runs it and hands each sampled token to its sequence. */
export class BenchStep {
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

  /** Most tokens of a step. */
  get tokensMax(): number {
    return this.#runner.limits.tokensMax;
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
