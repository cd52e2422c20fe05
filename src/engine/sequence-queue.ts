/** A doubly linked queue of sequences: push at both ends and removal from the middle in O(1), no garbage. */

import type { Sequence } from "./sequence.ts";

export class SequenceQueue {
  first: Sequence | null = null;
  last: Sequence | null = null;
  size = 0;

  pushBack(sequence: Sequence): void {
    sequence.previous = this.last;
    sequence.next = null;
    if (this.last === null) this.first = sequence;
    else this.last.next = sequence;
    this.last = sequence;
    this.size += 1;
  }

  pushFront(sequence: Sequence): void {
    sequence.previous = null;
    sequence.next = this.first;
    if (this.first === null) this.last = sequence;
    else this.first.previous = sequence;
    this.first = sequence;
    this.size += 1;
  }

  /** Puts the sequence behind all whose rank is not below its own. O(those it goes before). */
  insertByRank(sequence: Sequence): void {
    let before = this.last;
    while (before !== null && before.rank > sequence.rank) before = before.previous;
    const after = before === null ? this.first : before.next;
    sequence.previous = before;
    sequence.next = after;
    if (before === null) this.first = sequence;
    else before.next = sequence;
    if (after === null) this.last = sequence;
    else after.previous = sequence;
    this.size += 1;
  }

  /** The sequence must be in this queue. */
  remove(sequence: Sequence): void {
    if (sequence.previous === null) this.first = sequence.next;
    else sequence.previous.next = sequence.next;
    if (sequence.next === null) this.last = sequence.previous;
    else sequence.next.previous = sequence.previous;
    sequence.previous = null;
    sequence.next = null;
    this.size -= 1;
  }
}
