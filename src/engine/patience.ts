/**
 * How long an engine that is at work may say nothing before it counts as hung. Nothing can be heard during a step, and
 * a step of a large model on a small machine can take minutes, so the steps that were seen decide: a full one may take
 * several times what its tokens would take one by one. Before the first step nothing is known, and more is allowed.
 */

import { FIRST_STEP_PATIENCE, FULL_STEP_PATIENCE } from "./limits.ts";

/** What slower steps of the past still count for, after each new one. */
const DECAY = 0.98;

export class Patience {
  readonly #leastMs: number;
  #tokensMax = 0;
  /** Slowest milliseconds for a token, those of long ago forgotten bit by bit; 0 before the first step. */
  #tokenMs = 0;

  /** @param leastMs what is allowed however fast the steps are. */
  constructor(leastMs: number) {
    this.#leastMs = leastMs;
  }

  get allowedMs(): number {
    if (this.#tokenMs === 0) return this.#leastMs * FIRST_STEP_PATIENCE;
    return Math.max(this.#leastMs, this.#tokenMs * this.#tokensMax * FULL_STEP_PATIENCE);
  }

  /** A process is ready whose steps have at most so many tokens; of its speed nothing is known. */
  begin(tokensMax: number): void {
    this.#tokensMax = tokensMax;
    this.#tokenMs = 0;
  }

  /** Steps of so many tokens in all took this long. */
  learn(tokens: number, elapsedMs: number): void {
    if (tokens > 0) this.#tokenMs = Math.max(elapsedMs / tokens, this.#tokenMs * DECAY, Number.MIN_VALUE);
  }
}
