/**
 * Byte-pair merging of one run of symbols: repeatedly merges the most important neighbouring pair. A heap over a
 * linked list of symbols, so a run of n symbols costs n log n whatever its length, without recursion.
 */

import type { MergeRules } from "./merge-rules.ts";

/** Scratch larger than this is given back after the run that needed it. */
const SCRATCH_SYMBOLS_KEPT = 1 << 16;
const SCRATCH_SYMBOLS_INITIAL = 1 << 10;

export class MergeEncoder {
  private symbol!: Int32Array;
  private next!: Int32Array;
  private previous!: Int32Array;
  private count = 0;

  // A binary min-heap ordered by (priority, tie, position). Each symbol enters at most three pairs.
  private heapPriority!: Float64Array;
  private heapTie!: Int32Array;
  private heapPosition!: Int32Array;
  private heapSize = 0;

  constructor(private readonly rules: MergeRules) {
    this.allocate(SCRATCH_SYMBOLS_INITIAL);
  }

  /** Appends one symbol (a token id) to the run. */
  add(token: number): void {
    if (this.count === this.symbol.length) this.grow();
    this.symbol[this.count++] = token;
  }

  /** The symbol added last, or -1 at the start of a run. */
  get last(): number {
    return this.count === 0 ? -1 : this.symbol[this.count - 1]!;
  }

  /** Merges the run as far as it goes, appends the tokens to `output` and starts a new run. */
  finish(output: number[]): void {
    const { symbol, next, previous, rules, count } = this;
    for (let i = 0; i < count; i++) {
      next[i] = i + 1 < count ? i + 1 : -1;
      previous[i] = i - 1;
    }
    for (let i = 0; i + 1 < count; i++) this.consider(i, i + 1);
    while (this.heapSize > 0) {
      const position = this.heapPosition[0]!;
      const priority = this.heapPriority[0]!;
      const tie = this.heapTie[0]!;
      this.pop();
      if (symbol[position]! < 0) continue;
      const right = next[position]!;
      // An entry is stale when its pair has changed since it was queued.
      if (right < 0 || !rules.find(symbol[position]!, symbol[right]!)) continue;
      if (rules.priority !== priority || rules.tie !== tie) continue;
      symbol[position] = rules.merged;
      symbol[right] = -1;
      const after = next[right]!;
      next[position] = after;
      if (after >= 0) {
        previous[after] = position;
        this.consider(position, after);
      }
      const before = previous[position]!;
      if (before >= 0) this.consider(before, position);
    }
    for (let i = count > 0 ? 0 : -1; i >= 0; i = next[i]!) output.push(symbol[i]!);
    this.count = 0;
    if (count > SCRATCH_SYMBOLS_KEPT) this.allocate(SCRATCH_SYMBOLS_INITIAL);
  }

  private consider(left: number, right: number): void {
    const { rules } = this;
    if (!rules.find(this.symbol[left]!, this.symbol[right]!)) return;
    this.push(rules.priority, rules.tie, left);
  }

  private before(priority: number, tie: number, position: number, slot: number): boolean {
    const otherPriority = this.heapPriority[slot]!;
    if (priority !== otherPriority) return priority < otherPriority;
    const otherTie = this.heapTie[slot]!;
    return tie !== otherTie ? tie < otherTie : position < this.heapPosition[slot]!;
  }

  private place(slot: number, priority: number, tie: number, position: number): void {
    this.heapPriority[slot] = priority;
    this.heapTie[slot] = tie;
    this.heapPosition[slot] = position;
  }

  private push(priority: number, tie: number, position: number): void {
    let slot = this.heapSize++;
    while (slot > 0) {
      const parent = (slot - 1) >> 1;
      if (!this.before(priority, tie, position, parent)) break;
      this.place(slot, this.heapPriority[parent]!, this.heapTie[parent]!, this.heapPosition[parent]!);
      slot = parent;
    }
    this.place(slot, priority, tie, position);
  }

  private pop(): void {
    const size = --this.heapSize;
    const priority = this.heapPriority[size]!;
    const tie = this.heapTie[size]!;
    const position = this.heapPosition[size]!;
    let slot = 0;
    for (;;) {
      let child = 2 * slot + 1;
      if (child >= size) break;
      if (
        child + 1 < size &&
        this.before(
          this.heapPriority[child + 1]!,
          this.heapTie[child + 1]!,
          this.heapPosition[child + 1]!,
          child,
        )
      )
        child++;
      if (this.before(priority, tie, position, child)) break;
      this.place(slot, this.heapPriority[child]!, this.heapTie[child]!, this.heapPosition[child]!);
      slot = child;
    }
    this.place(slot, priority, tie, position);
  }

  private allocate(symbols: number): void {
    this.symbol = new Int32Array(symbols);
    this.next = new Int32Array(symbols);
    this.previous = new Int32Array(symbols);
    this.heapPriority = new Float64Array(3 * symbols);
    this.heapTie = new Int32Array(3 * symbols);
    this.heapPosition = new Int32Array(3 * symbols);
  }

  private grow(): void {
    const { symbol } = this;
    this.allocate(2 * symbol.length);
    this.symbol.set(symbol);
  }
}
