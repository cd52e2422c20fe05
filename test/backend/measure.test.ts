import { expect, test } from "bun:test";
import { availableLevels } from "../../src/backend/library.ts";
import { type Measurement, measureRate } from "../../src/backend/measure.ts";
import { expectMistralError } from "../support/expect-error.ts";

const SECONDS = 0.02;
const rateOf = (what: Measurement, threads = 1, bytes = 0) =>
  measureRate({ what, threads, seconds: SECONDS, bytes });

test("every level measures arithmetic and reading, and the best window is not below the median", () => {
  for (const instructionSet of availableLevels()) {
    for (const what of ["read", "f32_multiply_add", "int8_dot"] as const) {
      const rate = measureRate({ what, threads: 2, seconds: SECONDS, bytes: 1 << 20, instructionSet });
      // Any processor of this century; no processor of the next.
      expect(rate.median).toBeGreaterThan(1e8);
      expect(rate.best).toBeLessThan(1e16);
      expect(rate.best).toBeGreaterThanOrEqual(rate.median);
    }
  }
});

test("what the innermost cache holds is read faster than what lies in memory", () => {
  expect(rateOf("read", 1, 16 << 10).best).toBeGreaterThan(1.5 * rateOf("read", 1, 512 << 20).best);
});

test("the tile unit is measured where there is one, and refused elsewhere", () => {
  for (const instructionSet of availableLevels()) {
    for (const [what, other] of [
      ["int8_tile", "int8_dot"],
      ["bf16_tile", "f32_multiply_add"],
    ] as const) {
      const measure = () => measureRate({ what, threads: 1, seconds: SECONDS, instructionSet });
      if (instructionSet === "x86_64_v4_amx") {
        const without = measureRate({ what: other, threads: 1, seconds: SECONDS, instructionSet });
        expect(measure().best).toBeGreaterThan(without.best);
      } else expectMistralError(measure, "backend", "no tile unit");
    }
  }
});

test("refuses threads, times and sizes that make no sense", () => {
  expectMistralError(() => rateOf("read", 0, 1 << 20), "backend", "0 threads; 1 to 256");
  expectMistralError(() => rateOf("read", 2, 100), "backend", "100 bytes are too few");
  for (const seconds of [0, -1, 61, Number.NaN]) {
    expectMistralError(() => measureRate({ what: "int8_dot", threads: 1, seconds }), "backend", "0 to 60");
  }
});
