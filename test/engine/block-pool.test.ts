import { expect, test } from "bun:test";
import fc from "fast-check";
import { BlockPool } from "../../src/engine/block-pool.ts";

/** The same pool as plain arrays. */
class SimplePool {
  readonly free: number[];
  readonly references = new Map<number, number>();

  constructor(blockCount: number) {
    this.free = Array.from({ length: blockCount - 1 }, (_, index) => index + 1);
  }

  take(): number {
    const block = this.free.shift() ?? 0;
    if (block !== 0) this.references.set(block, 1);
    return block;
  }

  share(block: number): void {
    const references = this.references.get(block) ?? 0;
    if (references === 0) this.free.splice(this.free.indexOf(block), 1);
    this.references.set(block, references + 1);
  }

  release(block: number, keep: boolean): void {
    const references = this.references.get(block)! - 1;
    this.references.set(block, references);
    if (references > 0) return;
    if (keep) this.free.push(block);
    else this.free.unshift(block);
  }
}

const action = fc.record({
  kind: fc.constantFrom("take", "share", "release"),
  block: fc.integer({ min: 1, max: 9 }),
  keep: fc.boolean(),
});

test("behaves like a list and a map", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 2, max: 10 }),
      fc.array(action, { maxLength: 80 }),
      (blockCount, actions) => {
        const pool = new BlockPool(blockCount);
        const simple = new SimplePool(blockCount);
        for (const { kind, block: wish, keep } of actions) {
          const block = ((wish - 1) % (blockCount - 1)) + 1;
          if (kind === "take") {
            expect(pool.take()).toBe(simple.take());
          } else if (kind === "share") {
            pool.share(block);
            simple.share(block);
          } else if ((simple.references.get(block) ?? 0) > 0) {
            pool.release(block, keep);
            simple.release(block, keep);
          } else {
            expect(() => pool.release(block, keep)).toThrow("more often than it was taken");
            return;
          }
          pool.verify();
          expect(pool.free).toBe(simple.free.length);
          expect(pool.references(block)).toBe(simple.references.get(block) ?? 0);
        }
      },
    ),
    { seed: 1, numRuns: 300 },
  );
});

test("hands out everything but the null block, then says 0", () => {
  const pool = new BlockPool(4);
  expect([pool.take(), pool.take(), pool.take(), pool.take()]).toEqual([1, 2, 3, 0]);
  expect(pool.total).toBe(3);
});

test("the null block cannot be shared or released", () => {
  const pool = new BlockPool(4);
  expect(() => pool.share(0)).toThrow("0 is not a KV block");
  expect(() => pool.release(0, true)).toThrow("0 is not a KV block");
  expect(() => pool.share(4)).toThrow("4 is not a KV block");
});

test("a pool without room for one block is refused", () => {
  expect(() => new BlockPool(1)).toThrow(RangeError);
});
