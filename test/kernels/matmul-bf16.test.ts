/**
 * Products with bfloat16 weights, which the tile unit computes where there is one: every number of rows around those
 * of a tile, k in several chunks and with a rest, against float64 and bit for bit against each other.
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

function product(seed: number, k: number, activations: ActivationPrecision): Product {
  const random = new Random(seed);
  const recording = new Recording({ activations });
  const dimension = recording.program.dimension("tokens", TOKENS);
  const rows = random.floats(TOKENS * k);
  const residual = random.floats(TOKENS * WIDTH);
  const x = recording.f32("x", [dimension, k], rows);
  const added = recording.f32("residual", [dimension, WIDTH], residual);
  const bytes = HEIGHTS.map((height) => randomWeights(random, "bf16", height, k));
  const weights = HEIGHTS.map((height, i) => recording.input(`weight${i}`, "bf16", [height, k], bytes[i]!));
  const biasValues = HEIGHTS.map((height) => random.floats(height));
  const biases = HEIGHTS.map((height, i) => recording.f32(`bias${i}`, [height], biasValues[i]!));
  const out = matmul(recording.program, { name: "out", x, weights, biases, residual: added, keep: true });
  const values = Float64Array.from(bytes.flatMap((part) => [...dequantize("bf16", part)]));
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

for (const [k, activations] of [
  [32, "precise"],
  [75, "precise"],
  [1056, "precise"],
  [2600, "precise"],
  [1100, "fast"],
] as const) {
  describe(`k ${k}, ${activations}`, () => {
    const whole = product(k, k, activations);
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
  const { rows, residual, run, outBytes } = product(5, 1100, "precise");
  for (const { level, devices } of RELAID) {
    const instructionSet = level.split(" ")[0]!;
    const three = Device.open({ kind: "cpu", threads: 3, instructionSet });
    opened.push(three);
    expectSameBits(outBytes(run(three, rows, residual)), outBytes(run(devices[0], rows, residual)), level);
  }
});
