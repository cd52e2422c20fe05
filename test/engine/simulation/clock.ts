/** Time that passes only when it is told to, and the sleepers that wake as it does. */

interface Sleeper {
  readonly atMs: number;
  readonly wake: () => void;
}

export class VirtualClock {
  nowMs = 0;
  /** A heap by time. */
  readonly #sleepers: Sleeper[] = [];

  readonly now = (): number => this.nowMs;

  sleep(ms: number): Promise<void> {
    return new Promise((wake) => this.at(this.nowMs + ms, wake));
  }

  at(atMs: number, wake: () => void): void {
    const heap = this.#sleepers;
    heap.push({ atMs, wake });
    for (let index = heap.length - 1; index > 0; ) {
      const parent = (index - 1) >> 1;
      if (heap[parent]!.atMs <= heap[index]!.atMs) break;
      [heap[parent], heap[index]] = [heap[index]!, heap[parent]!];
      index = parent;
    }
  }

  /** When the next sleeper wakes; infinity for none. */
  get nextMs(): number {
    return this.#sleepers[0]?.atMs ?? Number.POSITIVE_INFINITY;
  }

  /** Lets time pass and wakes those whose time has come, in order. */
  advanceTo(atMs: number): void {
    while (this.nextMs <= atMs) {
      const { atMs: wakeMs, wake } = this.#pop();
      this.nowMs = Math.max(this.nowMs, wakeMs);
      wake();
    }
    this.nowMs = Math.max(this.nowMs, atMs);
  }

  #pop(): Sleeper {
    const heap = this.#sleepers;
    const first = heap[0]!;
    const last = heap.pop()!;
    if (heap.length === 0) return first;
    heap[0] = last;
    for (let index = 0; ; ) {
      const left = 2 * index + 1;
      if (left >= heap.length) break;
      const child = left + 1 < heap.length && heap[left + 1]!.atMs < heap[left]!.atMs ? left + 1 : left;
      if (heap[index]!.atMs <= heap[child]!.atMs) break;
      [heap[index], heap[child]] = [heap[child]!, heap[index]!];
      index = child;
    }
    return first;
  }
}

/** Numbers that follow from a seed (mulberry32). */
export class Chance {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** From 0 up to, but not, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let bits = this.#state;
    bits = Math.imul(bits ^ (bits >>> 15), bits | 1);
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61);
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from `min` to `max`. */
  whole(min: number, max: number): number {
    return min + Math.floor(this.next() * (max - min + 1));
  }

  /** True this often. */
  happens(share: number): boolean {
    return this.next() < share;
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.whole(0, choices.length - 1)]!;
  }

  /** Time to the next of events that come at this rate. */
  exponential(mean: number): number {
    return -Math.log(1 - this.next()) * mean;
  }
}
