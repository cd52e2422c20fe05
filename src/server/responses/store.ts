/**
 * Responses that can be fetched, continued and cancelled by their id: a bounded number of them, for a bounded time,
 * in memory. Responses that still run are never dropped for others.
 */

import { HttpFailure } from "../failure.ts";
import { LIMITS } from "../limits.ts";
import type { ResponseRun } from "./run.ts";

export interface StoreLimits {
  readonly entries: number;
  readonly bytes: number;
  readonly lifeMs: number;
}

const STORE_LIMITS: StoreLimits = {
  entries: LIMITS.storedResponses,
  bytes: LIMITS.storedResponseBytes,
  lifeMs: LIMITS.responseLifeMs,
};

interface Kept {
  readonly run: ResponseRun;
  readonly sinceMs: number;
}

export class ResponseStore {
  /** In the order of their arrival. */
  readonly #kept = new Map<string, Kept>();
  readonly #limits: StoreLimits;
  readonly #now: () => number;

  constructor(limits: StoreLimits = STORE_LIMITS, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Background responses that are not over. */
  get running(): number {
    let count = 0;
    for (const { run } of this.#kept.values()) if (run.background && !run.over) count += 1;
    return count;
  }

  put(run: ResponseRun): void {
    this.#kept.set(run.id, { run, sinceMs: this.#now() });
    this.#sweep();
  }

  /** Throws 404 for an id that was never given out, or whose response is gone. */
  get(id: string, parameter: string | null = null): ResponseRun {
    this.#sweep();
    const kept = this.#kept.get(id);
    if (kept !== undefined) return kept.run;
    throw new HttpFailure(
      404,
      `There is no response "${id.slice(0, 100)}". Responses are kept for ${this.#limits.lifeMs / 60_000} minutes, at most ${this.#limits.entries} of them, and not at all with store: false.`,
      { code: "response_not_found", parameter },
    );
  }

  /** Forgets the response, and stops it when it still runs. Throws 404. */
  delete(id: string): void {
    const run = this.get(id);
    this.#kept.delete(id);
    run.cancel();
  }

  /** Drops what is too old, and then the oldest until what is left fits. */
  #sweep(): void {
    const oldestMs = this.#now() - this.#limits.lifeMs;
    let bytes = 0;
    for (const { run } of this.#kept.values()) bytes += run.bytes;
    for (const [id, { run, sinceMs }] of this.#kept) {
      const fits = this.#kept.size <= this.#limits.entries && bytes <= this.#limits.bytes;
      if (sinceMs >= oldestMs && fits) break;
      if (!run.over) continue;
      this.#kept.delete(id);
      bytes -= run.bytes;
    }
  }
}
