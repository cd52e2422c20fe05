/** Our side of a comparison: the model in this process, given the same work as the other one. */

import type { ModelRunner } from "../../../models/step.ts";
import { type BenchSequence, BenchStep, decode, makeSequences, prefill } from "../bench-step.ts";

export interface OwnRoom {
  readonly sequences: number;
  /** Longest prompt and deepest context. */
  readonly promptTokens: number;
  /** With what is generated. */
  readonly totalTokens: number;
  readonly seed: bigint;
}

export class OwnSide {
  readonly #step: BenchStep;
  readonly #sequences: readonly BenchSequence[];
  readonly #clock: () => number;

  /** `clock` counts milliseconds. The runner's limits must have room. */
  constructor(runner: ModelRunner, { sequences, ...shape }: OwnRoom, clock: () => number) {
    this.#step = new BenchStep(runner);
    this.#sequences = makeSequences(runner, sequences, shape);
    this.#clock = clock;
  }

  /** Seconds to compute a prompt and to choose the token behind it. */
  prefill(tokens: number): number {
    const [first] = this.#sequences as [BenchSequence];
    const sequence = { ...first, prompt: first.prompt.subarray(0, tokens), length: 0 };
    const begin = this.#clock();
    prefill(this.#step, [sequence], tokens);
    const seconds = (this.#clock() - begin) / 1000;
    // It lies where the first sequence did.
    first.length = 0;
    return seconds;
  }

  /** Seconds to generate `steps` tokens of each sequence behind `depth` others, which are computed once. */
  decode(steps: number, depth: number, count: number): number {
    const sequences = this.#sequences.slice(0, count);
    this.#fill(sequences, depth);
    // The other side has been at the caches since.
    this.#generate(sequences, 1, depth);
    const begin = this.#clock();
    this.#generate(sequences, steps, depth);
    const seconds = (this.#clock() - begin) / 1000;
    for (const sequence of sequences) sequence.length = depth;
    return seconds;
  }

  #fill(sequences: readonly BenchSequence[], depth: number): void {
    for (const sequence of sequences) sequence.length = Math.min(sequence.length, depth);
    prefill(this.#step, sequences, depth);
  }

  #generate(sequences: readonly BenchSequence[], steps: number, depth: number): void {
    for (const sequence of sequences) sequence.length = depth;
    for (let step = 0; step < steps; step++) decode(this.#step, sequences);
  }
}
