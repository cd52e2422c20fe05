import { expect, test } from "bun:test";
import fc from "fast-check";
import { nestsDeeperThan } from "../../src/server/json-depth.ts";

function depthOf(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  return 1 + Math.max(0, ...Object.values(value).map(depthOf));
}

test("the depth of any JSON is what walking it says", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), fc.integer({ min: 0, max: 8 }), (value, limit) => {
      const text = Buffer.from(JSON.stringify(value));
      expect(nestsDeeperThan(text, limit)).toBe(depthOf(value) > limit);
    }),
    { seed: 5, numRuns: 2_000 },
  );
});

test("brackets in texts do not count, whatever stands before their end", () => {
  for (const text of ['"[[["', '"\\"[["', '"\\\\"', '"\\\\\\"[["', '{"[":"{"}']) {
    expect(() => JSON.parse(text)).not.toThrow();
    expect(nestsDeeperThan(Buffer.from(text), 1), text).toBe(false);
  }
});

test("what is no JSON is looked at once and left to the parser", () => {
  for (const text of ['"', '"\\', "]]]]", "", '{"a', '"\\\\\\'])
    expect(nestsDeeperThan(Buffer.from(text), 1)).toBe(false);
});
