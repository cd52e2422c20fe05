import { expect, test } from "bun:test";
import fc from "fast-check";
import { PrefixCache } from "../../src/engine/prefix-cache.ts";

const action = fc.record({
  kind: fc.constantFrom("register", "forget", "clear"),
  block: fc.integer({ min: 1, max: 7 }),
  key: fc.constantFrom("a", "b", "c", "d"),
});

test("behaves like a list of pairs", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), (actions) => {
      const cache = new PrefixCache(8);
      let pairs: { block: number; key: string }[] = [];
      for (const { kind, block, key } of actions) {
        const held = pairs.some((pair) => pair.block === block);
        if (kind === "clear" && block === 1) {
          cache.clear();
          pairs = [];
        } else if (kind === "forget") {
          expect(cache.forget(block)).toBe(held);
          pairs = pairs.filter((pair) => pair.block !== block);
        } else if (held) {
          expect(() => cache.register(block, key)).toThrow("registered twice");
        } else {
          const fresh = !pairs.some((pair) => pair.key === key);
          expect(cache.register(block, key)).toBe(fresh);
          if (fresh) pairs.push({ block, key });
        }
        expect(cache.size).toBe(pairs.length);
        for (const probe of ["a", "b", "c", "d"]) {
          expect(cache.find(probe)).toBe(pairs.find((pair) => pair.key === probe)?.block ?? 0);
        }
        expect(cache.has(block)).toBe(pairs.some((pair) => pair.block === block));
      }
    }),
    { seed: 2, numRuns: 300 },
  );
});
