/**
 * Which block holds the content of which key. Owns no memory: an unreferenced cached block is a free block
 * like any other, and whoever takes it from the pool calls `forget`.
 */

export class PrefixCache {
  readonly #blockOfKey = new Map<string, number>();
  readonly #keyOfBlock: (string | undefined)[];

  constructor(blockCount: number) {
    this.#keyOfBlock = new Array<string | undefined>(blockCount).fill(undefined);
  }

  get size(): number {
    return this.#blockOfKey.size;
  }

  /** The block with this content, or 0. */
  find(key: string): number {
    return this.#blockOfKey.get(key) ?? 0;
  }

  has(block: number): boolean {
    return this.#keyOfBlock[block] !== undefined;
  }

  /**
   * Remembers that a full block holds the content of `key`. When another block holds it already the first one
   * stays: tables are append-only, so a running sequence is never moved to a twin.
   */
  register(block: number, key: string): boolean {
    if (this.#keyOfBlock[block] !== undefined) throw new Error(`KV block ${block} was registered twice`);
    if (this.#blockOfKey.has(key)) return false;
    this.#blockOfKey.set(key, block);
    this.#keyOfBlock[block] = key;
    return true;
  }

  /** Drops what a block held, because it is about to be overwritten; true when there was something. */
  forget(block: number): boolean {
    const key = this.#keyOfBlock[block];
    if (key === undefined) return false;
    this.#keyOfBlock[block] = undefined;
    this.#blockOfKey.delete(key);
    return true;
  }

  clear(): void {
    this.#blockOfKey.clear();
    this.#keyOfBlock.fill(undefined);
  }
}
