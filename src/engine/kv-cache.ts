/**
 * The KV memory as sequences see it: takes, shares and frees blocks, finds prefixes and registers full blocks.
 * Decides nothing: what runs and who is preempted is the scheduler's business.
 */

import { BlockHasher } from "./block-hash.ts";
import { BlockPool } from "./block-pool.ts";
import { PrefixCache } from "./prefix-cache.ts";
import type { Sequence } from "./sequence.ts";

export interface KvCacheOptions {
  readonly blockSize: number;
  /** Includes the null block. */
  readonly blockCount: number;
  readonly prefixCache: boolean;
  /** 32 bytes; random when absent. */
  readonly secret?: Uint8Array;
}

export class KvCache {
  readonly blockSize: number;
  readonly pool: BlockPool;
  readonly #prefix: PrefixCache | null;
  readonly #hasher: BlockHasher;
  /** Keys of prompt blocks that a running sequence is about to compute. */
  readonly #pending = new Map<string, Sequence>();
  /** Admissions that looked for a prefix, those that found one, and cached blocks that were overwritten. */
  lookups = 0;
  hits = 0;
  evictions = 0;

  constructor(options: KvCacheOptions) {
    this.blockSize = options.blockSize;
    this.pool = new BlockPool(options.blockCount);
    this.#prefix = options.prefixCache ? new PrefixCache(options.blockCount) : null;
    this.#hasher = new BlockHasher(options.secret);
  }

  get freeBlocks(): number {
    return this.pool.free;
  }

  references(block: number): number {
    return this.pool.references(block);
  }

  /** Blocks that hold `tokens` tokens. */
  blocksFor(tokens: number): number {
    return Math.ceil(tokens / this.blockSize);
  }

  /** To be called once before a sequence is first offered to the scheduler. */
  prepare(sequence: Sequence): void {
    if (this.#prefix !== null) sequence.hashBlocks(this.#hasher, this.blockSize, sequence.length);
  }

  /** Leading blocks of the sequence that are cached now. */
  matchedBlocks(sequence: Sequence): number {
    if (this.#prefix === null) return 0;
    const limit = Math.min(sequence.keys.length, Math.floor(sequence.matchableTokens / this.blockSize));
    let matched = 0;
    while (matched < limit && this.#prefix.find(sequence.keys[matched]!) !== 0) matched++;
    return matched;
  }

  /** Of the first `matched` blocks, those that are free: sharing them takes memory from others. */
  freeAmongMatched(sequence: Sequence, matched: number): number {
    let free = 0;
    for (let index = 0; index < matched; index++) {
      if (this.pool.references(this.#prefix!.find(sequence.keys[index]!)) === 0) free++;
    }
    return free;
  }

  /** Whether a running sequence is computing the block that this one would need after its `matched` ones. */
  isPending(sequence: Sequence, matched: number): boolean {
    if ((matched + 1) * this.blockSize > sequence.matchableTokens) return false;
    const key = sequence.keys[matched];
    return key !== undefined && this.#pending.has(key);
  }

  /** Gives an admitted sequence its cached prefix. All of a plan's sequences first, before anything is taken. */
  shareMatched(sequence: Sequence, matched: number): void {
    if (sequence.blocks.length === 0) sequence.blocks = new Int32Array(this.blocksFor(sequence.lengthMax));
    for (let index = 0; index < matched; index++) {
      const block = this.#prefix!.find(sequence.keys[index]!);
      this.pool.share(block);
      sequence.blocks[index] = block;
    }
    sequence.admissions += 1;
    sequence.blockCount = matched;
    sequence.registered = matched;
    sequence.computed = matched * this.blockSize;
    for (let index = matched; index < sequence.keys.length; index++) {
      const key = sequence.keys[index]!;
      if (!this.#pending.has(key)) this.#pending.set(key, sequence);
    }
    if (this.#prefix !== null && sequence.matchableTokens >= this.blockSize) {
      this.lookups += 1;
      if (matched > 0) this.hits += 1;
    }
  }

  /** Makes room for the first `tokens` tokens. The plan has counted: an empty pool here is our bug. */
  extend(sequence: Sequence, tokens: number): void {
    for (const needed = this.blocksFor(tokens); sequence.blockCount < needed; sequence.blockCount++) {
      const block = this.pool.take();
      if (block === 0)
        throw new Error(`no KV block is free for request ${sequence.id}; the plan said one would be`);
      if (this.#prefix?.forget(block) === true) this.evictions += 1;
      sequence.blocks[sequence.blockCount] = block;
    }
  }

  /** Offers the blocks that became full to the prefix cache. Only final tokens may have been computed. */
  register(sequence: Sequence): void {
    if (this.#prefix === null) return;
    const full = Math.floor(sequence.computed / this.blockSize);
    if (full === sequence.registered) return;
    sequence.hashBlocks(this.#hasher, this.blockSize, sequence.computed);
    for (; sequence.registered < full; sequence.registered++) {
      const key = sequence.keys[sequence.registered]!;
      this.#prefix.register(sequence.blocks[sequence.registered]!, key);
      if (this.#pending.get(key) === sequence) this.#pending.delete(key);
    }
  }

  /** Frees everything, the tail first: the least likely part to be shared is the first to be overwritten. */
  release(sequence: Sequence): void {
    for (let index = sequence.blockCount - 1; index >= 0; index--) {
      const block = sequence.blocks[index]!;
      this.pool.release(block, this.#prefix?.has(block) ?? false);
    }
    for (let index = sequence.registered; index < sequence.keys.length; index++) {
      const key = sequence.keys[index]!;
      if (this.#pending.get(key) === sequence) this.#pending.delete(key);
    }
    sequence.blockCount = 0;
    sequence.registered = 0;
    sequence.computed = 0;
  }

  /** Forgets every cached block: after a failed step their content cannot be trusted. */
  clearPrefixes(): void {
    this.#prefix?.clear();
  }

  /**
   * The ledger check: free + referenced is the total, and the references are exactly those of `running`.
   * Throws with the figures when not. O(blocks).
   */
  verify(running: Iterable<Sequence>): void {
    this.pool.verify();
    const counts = new Int32Array(this.pool.total + 1);
    for (const sequence of running) {
      for (let index = 0; index < sequence.blockCount; index++) counts[sequence.blocks[index]!]! += 1;
    }
    for (let block = 1; block < counts.length; block++) {
      if (counts[block] !== this.pool.references(block)) {
        throw new Error(
          `KV ledger: block ${block} has ${this.pool.references(block)} references, its sequences hold ${counts[block]}`,
        );
      }
    }
  }
}
