/**
 * Watches the queue from outside: how long each class waits, and whether anybody is passed by more often than the
 * rules allow. A request that has risen to the top class is passed by at most three others for each one older than
 * itself; one of the top class by at most one for every three.
 */

import { AGEING_MS, TURNS_PER_RISEN } from "../../../src/engine/limits.ts";
import type { Priority } from "../../../src/engine/messages.ts";
import { PRIORITY_CLASS } from "../../../src/engine/waiting-line.ts";

interface Waiting {
  readonly id: number;
  readonly class: number;
  readonly sinceMs: number;
  /** From here on the bound holds: admissions and preemptions so far, and requests that may go before. */
  mark: { readonly admissions: number; readonly preemptions: number; readonly ahead: number } | null;
}

export interface WaitSummary {
  readonly requests: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

export class WaitingObserver {
  readonly #waiting = new Map<number, Waiting>();
  readonly #waits: number[][] = [[], [], []];
  #admissions = 0;
  /** The largest share of its bound that any request used up. */
  tightest = 0;
  /** Requests whose bound was checked, by whether they had risen. */
  checkedRisen = 0;
  checkedTop = 0;

  submitted(id: number, priority: Priority, nowMs: number, preempted: number, preemptions: number): void {
    const entry: Waiting = { id, class: PRIORITY_CLASS[priority], sinceMs: nowMs, mark: null };
    if (entry.class === 0) {
      let ahead = preempted;
      for (const other of this.#waiting.values()) if (other.class === 0) ahead += 1;
      entry.mark = { admissions: this.#admissions, preemptions, ahead };
    }
    this.#waiting.set(id, entry);
  }

  /** Time has passed: who has risen to the top class begins to be counted for. */
  passed(nowMs: number, preempted: number, preemptions: number): void {
    for (const entry of this.#waiting.values()) {
      if (entry.mark !== null || nowMs - entry.sinceMs < AGEING_MS * entry.class) continue;
      let ahead = preempted;
      for (const other of this.#waiting.values()) {
        if (other !== entry && other.sinceMs <= entry.sinceMs) ahead += 1;
      }
      entry.mark = { admissions: this.#admissions, preemptions, ahead };
    }
  }

  /** Throws when the request was passed by more often than the rules allow; `isChecked`: nobody is held for a prefix. */
  started(id: number, nowMs: number, preemptions: number, isChecked: boolean): void {
    const entry = this.#waiting.get(id);
    if (entry === undefined) throw new Error(`request ${id} started, but does not wait`);
    this.#waiting.delete(id);
    this.#waits[entry.class]!.push(nowMs - entry.sinceMs);
    if (entry.mark !== null && isChecked) {
      const turns = entry.mark.ahead + 1 + (preemptions - entry.mark.preemptions);
      const bound =
        entry.class === 0
          ? Math.ceil((turns * TURNS_PER_RISEN) / (TURNS_PER_RISEN - 1)) + 1
          : turns * TURNS_PER_RISEN + 1;
      const used = this.#admissions + 1 - entry.mark.admissions;
      this.tightest = Math.max(this.tightest, used / bound);
      if (entry.class === 0) this.checkedTop += 1;
      else this.checkedRisen += 1;
      if (used > bound) {
        throw new Error(
          `request ${id} of class ${entry.class} was admitted as number ${used}, but number ${bound} is the last allowed`,
        );
      }
    }
    this.#admissions += 1;
  }

  ended(id: number): void {
    this.#waiting.delete(id);
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  summary(priority: Priority): WaitSummary {
    const waits = this.#waits[PRIORITY_CLASS[priority]]!.toSorted((a, b) => a - b);
    const at = (share: number): number =>
      waits[Math.min(waits.length - 1, Math.floor(waits.length * share))] ?? 0;
    return { requests: waits.length, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: waits.at(-1) ?? 0 };
  }
}
