/**
 * The ledger of KV blocks: reference counts and the list of free blocks, least recently used first. Knows
 * nothing of tokens, keys or sequences. The list is intrusive, two typed arrays with the null block 0 as its
 * sentinel, so every operation is O(1) and allocates nothing.
 */

export class BlockPool {
  /** Blocks that can be handed out: all but the null block. */
  readonly total: number;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #references: Int32Array;
  #free = 0;

  /** `blockCount` includes the null block 0, which is never handed out. */
  constructor(blockCount: number) {
    if (!Number.isInteger(blockCount) || blockCount < 2) {
      throw new RangeError(
        `a block pool needs the null block and at least one more, not ${blockCount} blocks`,
      );
    }
    this.total = blockCount - 1;
    this.#next = new Int32Array(blockCount);
    this.#previous = new Int32Array(blockCount);
    this.#references = new Int32Array(blockCount);
    for (let block = 1; block < blockCount; block++) this.#insertBefore(block, 0);
  }

  /** Blocks with no reference. Their content may still be in the prefix cache. */
  get free(): number {
    return this.#free;
  }

  references(block: number): number {
    return this.#references[block]!;
  }

  /** Takes the least recently used free block, with one reference; 0 when there is none. */
  take(): number {
    const block = this.#next[0]!;
    if (block === 0) return 0;
    this.#unlink(block);
    this.#references[block] = 1;
    return block;
  }

  /** Adds a reference; a free block leaves the list and keeps its content. */
  share(block: number): void {
    this.#checkBlock(block);
    if (this.#references[block] === 0) this.#unlink(block);
    this.#references[block]! += 1;
  }

  /**
   * Drops a reference. The last one makes the block free: at the end of the list, the last to be taken again,
   * when its content is worth keeping, else at the head.
   */
  release(block: number, keep: boolean): void {
    this.#checkBlock(block);
    const left = this.#references[block]! - 1;
    if (left < 0) throw new Error(`KV block ${block} was released more often than it was taken`);
    this.#references[block] = left;
    if (left === 0) this.#insertBefore(block, keep ? 0 : this.#next[0]!);
  }

  /** Walks everything; throws when free + referenced is not the total or the list is damaged. O(blocks). */
  verify(): void {
    let referenced = 0;
    for (let block = 1; block <= this.total; block++) if (this.#references[block]! > 0) referenced++;
    let listed = 0;
    for (let block = this.#next[0]!; block !== 0 && listed <= this.total; block = this.#next[block]!) {
      listed++;
      if (this.#references[block] !== 0) throw new Error(`KV block ${block} is free and referenced`);
      if (this.#next[this.#previous[block]!] !== block)
        throw new Error(`KV block ${block} is linked wrongly`);
    }
    if (listed !== this.#free || listed + referenced !== this.total) {
      throw new Error(
        `KV ledger: ${listed} blocks listed free, ${this.#free} counted, ${referenced} referenced, ${this.total} in total`,
      );
    }
  }

  #checkBlock(block: number): void {
    if (!(block >= 1 && block <= this.total)) throw new Error(`${block} is not a KV block`);
  }

  #insertBefore(block: number, at: number): void {
    const before = this.#previous[at]!;
    this.#next[before] = block;
    this.#previous[block] = before;
    this.#next[block] = at;
    this.#previous[at] = block;
    this.#free += 1;
  }

  #unlink(block: number): void {
    const before = this.#previous[block]!;
    const after = this.#next[block]!;
    this.#next[before] = after;
    this.#previous[after] = before;
    this.#free -= 1;
  }
}
