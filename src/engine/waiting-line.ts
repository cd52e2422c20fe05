/**
 * The sequences that wait, a queue for each class of priority, and the order in which they are taken. A class goes
 * before the ones below it, and within a class who came first. Whoever waits long enough rises to the class above.
 * While somebody has risen to the class that waits on top, one of every `TURNS_PER_RISEN` admissions goes to the one
 * of them all that has waited longest, and the others stay with that class. So nobody can be starved: not those below
 * by a flood above, and not those above by a backlog that has risen.
 */

import { AGEING_MS, TURNS_PER_RISEN } from "./limits.ts";
import type { Priority } from "./messages.ts";
import type { Sequence } from "./sequence.ts";
import { SequenceQueue } from "./sequence-queue.ts";

/** The class of each priority; 0 goes first. */
export const PRIORITY_CLASS: Readonly<Record<Priority, number>> = { interactive: 0, normal: 1, batch: 2 };
const CLASS_COUNT = 3;

/** The class that a sequence has risen to by waiting. */
export function risenClass(sequence: Sequence, nowMs: number): number {
  const risen = Math.floor((nowMs - sequence.queuedAtMs) / AGEING_MS);
  return Math.max(0, Math.min(sequence.priorityClass - risen, sequence.rank));
}

export class WaitingLine {
  /** By rank, in order of arrival; preempted ones stand in front. */
  readonly queues: readonly SequenceQueue[] = Array.from({ length: CLASS_COUNT }, () => new SequenceQueue());

  get size(): number {
    let size = 0;
    for (const queue of this.queues) size += queue.size;
    return size;
  }

  pushBack(sequence: Sequence): void {
    this.queues[sequence.rank]!.pushBack(sequence);
  }

  /** Puts a sequence that has run before all others of its rank. */
  pushFront(sequence: Sequence): void {
    this.queues[sequence.rank]!.pushFront(sequence);
  }

  remove(sequence: Sequence): void {
    this.queues[sequence.rank]!.remove(sequence);
  }
}

/** Reads a line in the order in which its sequences are to be admitted, and changes nothing. */
export class LineReader {
  readonly #nowMs: number;
  readonly #places: (Sequence | null)[];
  #class = 0;
  /** The current one has the turn of those who have waited longest. */
  #isTurn = false;
  /** Admissions since that turn was last had. */
  turns: number;

  constructor(line: WaitingLine, nowMs: number, turns: number) {
    this.#nowMs = nowMs;
    this.#places = line.queues.map(({ first }) => first);
    this.turns = turns;
  }

  /** Who is next, or null. Stays the same until it is passed or admitted. */
  get current(): Sequence | null {
    const top = this.#places.findIndex((place) => place !== null);
    if (top < 0) return null;
    const risen = this.turns + 1 >= TURNS_PER_RISEN ? this.#risenTo(top) : -1;
    this.#isTurn = risen >= 0;
    const isOlder = risen >= 0 && this.#places[risen]!.queuedAtMs < this.#places[top]!.queuedAtMs;
    this.#class = isOlder ? risen : top;
    return this.#places[this.#class]!;
  }

  /** Leaves the current one waiting and looks at those behind it. */
  pass(): void {
    this.#places[this.#class] = this.#places[this.#class]!.next;
  }

  /** The current one is admitted. */
  admit(): void {
    this.turns = this.#isTurn ? 0 : Math.min(this.turns + 1, TURNS_PER_RISEN);
    this.pass();
  }

  /** The class below `top` whose first has risen to it and has waited longest; -1 for none. */
  #risenTo(top: number): number {
    let found = -1;
    for (let index = top + 1; index < this.#places.length; index++) {
      const place = this.#places[index];
      if (place == null || risenClass(place, this.#nowMs) > top) continue;
      if (found < 0 || place.queuedAtMs < this.#places[found]!.queuedAtMs) found = index;
    }
    return found;
  }
}
