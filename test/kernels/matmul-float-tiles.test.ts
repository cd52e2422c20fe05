/**
 * Products with bf16 and f16 weights, which the tile unit computes where there is one: every number of rows around
 * those of a tile, k in several chunks and with a rest, against float64 and bit for bit against each other.
 */

import { afterAll, describe, expect, test } from "bun:test";
import { Device } from "../../src/backend/device.ts";
import type { ActivationPrecision } from "../../src/graph/builder.ts";
import { matmul } from "../../src/graph/record.ts";
import {
  expectClose,
  expectSameBits,
  hasBf16Tiles,
  type Outcome,
  PRODUCT_LEVELS,
  Recording,
} from "./harness.ts";
import { Random, randomWeights } from "./random.ts";
import { dequantize } from "./reference/dequantize.ts";
import { multiply, productBounds, roundToBf16 } from "./reference/matmul.ts";

/** Of the bound of rounding: what f32 may lose that sums thousands of products one after the other. */
const SUMMED_IN_F32 = 3e-7;
const TOKENS = 100;
/** Three matrices side by side, none of whole panels. */
const HEIGHTS = [70, 9, 33] as const;
const WIDTH = HEIGHTS.reduce((sum, height) => sum + height, 0);

const DTYPES = ["bf16", "f16"] as const;
type FloatDtype = (typeof DTYPES)[number];

interface Product {
  readonly recording: Recording;
  readonly rows: Float32Array;
  readonly run: (device: Device, rows: Float32Array, residual: Float32Array) => Outcome;
  readonly outBytes: (outcome: Outcome) => Uint8Array;
  readonly outValues: (outcome: Outcome) => Float32Array;
  readonly residual: Float32Array;
  readonly expected: (x: Float64Array) => Float64Array;
  readonly bounds: (x: Float64Array) => Float64Array;
}

function product(dtype: FloatDtype, seed: number, k: number, activations: ActivationPrecision): Product {
  const random = new Random(seed);
  const recording = new Recording({ activations });
  const dimension = recording.program.dimension("tokens", TOKENS);
  const rows = random.floats(TOKENS * k);
  const residual = random.floats(TOKENS * WIDTH);
  const x = recording.f32("x", [dimension, k], rows);
  const added = recording.f32("residual", [dimension, WIDTH], residual);
  const bytes = HEIGHTS.map((height) => randomWeights(random, dtype, height, k));
  const weights = HEIGHTS.map((height, i) => recording.input(`weight${i}`, dtype, [height, k], bytes[i]!));
  const biasValues = HEIGHTS.map((height) => random.floats(height));
  const biases = HEIGHTS.map((height, i) => recording.f32(`bias${i}`, [height], biasValues[i]!));
  const out = matmul(recording.program, { name: "out", x, weights, biases, residual: added, keep: true });
  const values = Float64Array.from(bytes.flatMap((part) => [...dequantize(dtype, part)]));
  const bias = biasValues.flatMap((part) => [...part]);
  return {
    recording,
    rows,
    residual,
    run(device, some, residualOfSome) {
      recording.set(x, some);
      recording.set(added, residualOfSome);
      return recording.run(device, [some.length / k], { repack: true });
    },
    outBytes: (outcome) => outcome.bytes(out),
    outValues: (outcome) => outcome.f32(out),
    expected: (input) =>
      multiply(input, values, k).map((value, i) => value + bias[i % WIDTH]! + residual[i]!),
    bounds: (input) => productBounds(input, values, k).map((value) => value + 2),
  };
}

const RELAID = PRODUCT_LEVELS.filter(({ level }) => level.endsWith("repacked"));
const opened: Device[] = [];
afterAll(() => {
  for (const device of opened) device.close();
});

for (const [dtype, k, activations] of DTYPES.flatMap((type) => [
  [type, 32, "precise"] as const,
  [type, 75, "precise"] as const,
  [type, 1056, "precise"] as const,
  [type, 2600, "precise"] as const,
  [type, 1100, "fast"] as const,
])) {
  describe(`${dtype}, k ${k}, ${activations}`, () => {
    const whole = product(dtype, k, k, activations);
    const all = RELAID.map(({ level, devices }) => ({
      level,
      devices,
      outcome: whole.run(devices[1], whole.rows, whole.residual),
    }));

    test("against float64", () => {
      expect(all.length).toBeGreaterThan(0);
      for (const { level, outcome } of all) {
        const isRounded = activations === "fast" && hasBf16Tiles(level);
        const x = isRounded ? roundToBf16(whole.rows) : Float64Array.from(whole.rows);
        const bounds = whole.bounds(x);
        expectClose(whole.outValues(outcome), whole.expected(x), (i) => SUMMED_IN_F32 * bounds[i]!, level);
      }
    });

    test("rows are the same alone and in any company", () => {
      for (const { level, devices, outcome } of all) {
        const bytes = whole.outBytes(outcome);
        for (const count of [1, 2, 5, 6, 16, 17, 33]) {
          const first = count === 1 ? 41 : TOKENS - count;
          const rows = whole.rows.subarray(first * k, (first + count) * k);
          const residual = whole.residual.subarray(first * WIDTH, (first + count) * WIDTH);
          const some = whole.outBytes(whole.run(devices[0], rows, residual));
          const part = bytes.subarray(first * WIDTH * 4, (first + count) * WIDTH * 4);
          expectSameBits(some, part, `${level}, ${count} rows`);
        }
      }
    });

    test("infinities and NaNs stay in their rows", () => {
      const spoiled = whole.rows.slice();
      spoiled[3 * k + 1] = Number.POSITIVE_INFINITY;
      spoiled[20 * k + k - 1] = Number.NaN;
      for (const { level, devices, outcome } of all) {
        const now = whole.run(devices[1], spoiled, whole.residual);
        const values = whole.outValues(now);
        const [before, after] = [whole.outBytes(outcome), whole.outBytes(now)];
        for (let row = 0; row < TOKENS; row++) {
          if (row === 3 || row === 20) {
            const own = values.subarray(row * WIDTH, (row + 1) * WIDTH);
            expect(own.every((value) => !Number.isFinite(value))).toBe(true);
            // An infinity times any number but zero is one.
            if (row === 3)
              expect(own.some((value) => Math.abs(value) === Number.POSITIVE_INFINITY)).toBe(true);
          } else {
            const [start, end] = [row * WIDTH * 4, (row + 1) * WIDTH * 4];
            expectSameBits(after.subarray(start, end), before.subarray(start, end), `${level}, row ${row}`);
          }
        }
      }
    });
  });
}

test("three threads compute what one does", () => {
  for (const { level, devices } of RELAID) {
    const instructionSet = level.split(" ")[0]!;
    const three = Device.open({ kind: "cpu", threads: 3, instructionSet });
    opened.push(three);
    for (const dtype of DTYPES) {
      const { rows, residual, run, outBytes } = product(dtype, 5, 1100, "precise");
      const what = `${level} ${dtype}`;
      expectSameBits(outBytes(run(three, rows, residual)), outBytes(run(devices[0], rows, residual)), what);
    }
  }
});

/** By the row of weights that they fill: the smallest f16, the largest subnormal one, the smallest and largest normal. */
const LIMITS = [2 ** -24, 1023 * 2 ** -24, 2 ** -14, 65504, -(2 ** -24), 1.5 * 2 ** -23] as const;

test("f16 weights at the limits of their range", () => {
  const k = 96;
  const tokens = 20;
  const height = 32;
  const random = new Random(6);
  const recording = new Recording();
  const dimension = recording.program.dimension("tokens", tokens);
  const rows = random.floats(tokens * k);
  const x = recording.f32("x", [dimension, k], rows);
  const numbers = Float64Array.from(
    { length: height * k },
    (_, i) => LIMITS[Math.floor(i / k) % LIMITS.length]!,
  );
  const halves = new Uint8Array(2 * numbers.length);
  const view = new DataView(halves.buffer);
  numbers.forEach((value, i) => {
    view.setFloat16(2 * i, value, true);
  });
  // Rows of weights that are no numbers, once in front and once behind in their pairs.
  view.setFloat16(2 * (7 * k + 10), Number.POSITIVE_INFINITY, true);
  view.setFloat16(2 * (18 * k + 33), Number.NaN, true);
  const weight = recording.input("weight", "f16", [height, k], halves);
  const out = matmul(recording.program, { name: "out", x, weights: [weight], keep: true });
  const expected = multiply(Float64Array.from(rows), numbers, k);
  const bounds = productBounds(Float64Array.from(rows), numbers, k);
  for (const { level, devices } of RELAID) {
    for (const count of [1, tokens]) {
      recording.set(x, rows.subarray(0, count * k));
      const actual = recording.run(devices[1], [count], { repack: true }).f32(out);
      for (let i = 0; i < count * height; i++) {
        if (i % height === 7 || i % height === 18) expect(actual[i]).not.toSatisfy(Number.isFinite);
      }
      const kept = actual.map((value, i) => ([7, 18].includes(i % height) ? expected[i]! : value));
      expectClose(kept, expected.subarray(0, count * height), (i) => SUMMED_IN_F32 * bounds[i]!, level);
    }
  }
});
