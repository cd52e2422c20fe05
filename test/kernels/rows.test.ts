/** The ops that treat each row by itself, against float64. */

import { describe, expect, test } from "bun:test";
import { embed, gatedMul, gatherRows, rmsNorm, softCap } from "../../src/graph/record.ts";
import { rope, ropeTable } from "../../src/graph/record-attention.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { expectClose, expectSameBits, LEVELS, Recording } from "./harness.ts";
import { Random, randomWeights, WEIGHT_DTYPES } from "./random.ts";
import { dequantize } from "./reference/dequantize.ts";

const TOKENS = [1, 2, 5, 33] as const;
const TOKENS_MAX = 40;
/** Relative error of a few operations in f32. */
const F32 = 1e-6;

/** Relative to the expected value, with a floor for sums that cancel. */
function relative(expected: Float64Array, factor: number, floor = 1e-3): (index: number) => number {
  return (index) => factor * Math.max(Math.abs(expected[index]!), floor);
}

/** Runs on all levels; then the middle row alone must give the bits it gave among the others. */
function check(
  recording: Recording,
  tokens: number,
  parts: { readonly out: Tensor; readonly rows: readonly (readonly [Tensor, Float32Array | Int32Array])[] },
  expected: Float64Array,
  tolerance: (index: number) => number,
): void {
  const { out, rows } = parts;
  for (const { level, outcome } of recording.runEverywhere([tokens], [out]))
    expectClose(outcome.f32(out), expected, tolerance, `${level} ${tokens} tokens`);
  const middle = Math.floor(tokens / 2);
  for (const { level, devices } of LEVELS) {
    const all = recording.run(devices[1], [tokens]).bytes(out);
    for (const [tensor, data] of rows) {
      const width = data.length / tokens;
      recording.set(tensor, data.slice(middle * width, (middle + 1) * width));
    }
    const alone = recording.run(devices[0], [1]).bytes(out);
    expectSameBits(alone, all.subarray(middle * alone.length, (middle + 1) * alone.length), `${level} alone`);
    for (const [tensor, data] of rows) recording.set(tensor, data);
  }
}

describe("embed", () => {
  for (const dtype of WEIGHT_DTYPES) {
    test(`rows of ${dtype}`, () => {
      const random = new Random(3);
      const width = 512;
      const bytes = randomWeights(random, dtype, 29, width);
      const values = dequantize(dtype, bytes);
      for (const tokens of TOKENS) {
        for (const scale of [1, 22.627417]) {
          const recording = new Recording();
          const dimension = recording.program.dimension("tokens", TOKENS_MAX);
          const numbers = Int32Array.from({ length: tokens }, (_, i) => [28, 0][i] ?? random.below(29));
          const ids = recording.i32("ids", [dimension], [...numbers]);
          const table = recording.input("table", dtype, [29, width], bytes);
          const out = embed(recording.program, { name: "out", table, ids, scale });
          const expected = Float64Array.from(
            { length: tokens * width },
            (_, i) => values[numbers[Math.floor(i / width)]! * width + (i % width)]! * Math.fround(scale),
          );
          const largest = values.reduce((most, value) => Math.max(most, Math.abs(value)), 0) * scale;
          check(recording, tokens, { out, rows: [[ids, numbers]] }, expected, () => 2e-7 * largest);
        }
      }
    });
  }
});

describe("rms_norm", () => {
  for (const [groups, width] of [
    [1, 1],
    [1, 7],
    [1, 576],
    [3, 24],
    [2, 65],
  ] as const) {
    test(`${groups} groups of ${width}, with and without offset and residual, in place`, () => {
      const random = new Random(width);
      for (const tokens of TOKENS) {
        for (const [withResidual, weightOffset, inPlace] of [
          [false, 0, false],
          [true, 1, false],
          [false, 1, true],
        ] as const) {
          const recording = new Recording();
          const dimension = recording.program.dimension("tokens", TOKENS_MAX);
          const inner = groups === 1 ? [width] : [groups, width];
          const count = tokens * groups * width;
          const values = random.floats(count, 3);
          const extra = random.floats(count);
          const weights = random.floats(width);
          const x = inPlace
            ? recording.state("x", "f32", [dimension, ...inner], values)
            : recording.f32("x", [dimension, ...inner], values);
          const residual = withResidual ? recording.f32("r", [dimension, ...inner], extra) : undefined;
          const weight = recording.f32("w", [width], weights);
          const out = rmsNorm(recording.program, {
            name: "out",
            x,
            weight,
            epsilon: 1e-5,
            weightOffset,
            residual,
            out: inPlace ? x : undefined,
          });
          const expected = new Float64Array(count);
          for (let at = 0; at < count; at += width) {
            let squares = 0;
            for (let i = 0; i < width; i++) squares += values[at + i]! ** 2;
            const inverse = 1 / Math.sqrt(squares / width + 1e-5);
            for (let i = 0; i < width; i++) {
              const scaled = values[at + i]! * inverse * (weights[i]! + weightOffset);
              expected[at + i] = scaled + (withResidual ? extra[at + i]! : 0);
            }
          }
          const rows: [Tensor, Float32Array][] = [[x, values]];
          if (residual !== undefined) rows.push([residual, extra]);
          check(recording, tokens, { out, rows }, expected, relative(expected, F32, 8));
        }
      }
    });
  }
});

describe("rope", () => {
  for (const [headDim, pairs, interleaved] of [
    [64, 32, false],
    [64, 32, true],
    [80, 20, false],
    [6, 1, true],
    [128, 61, false],
  ] as const) {
    test(`${pairs} pairs of ${headDim}${interleaved ? ", interleaved" : ""}`, () => {
      const random = new Random(pairs);
      for (const tokens of TOKENS) {
        const recording = new Recording();
        const dimension = recording.program.dimension("tokens", TOKENS_MAX);
        const places = Int32Array.from({ length: tokens }, (_, i) => [0, 8191][i] ?? random.below(4000));
        const frequencies = Float32Array.from({ length: pairs }, (_, i) => 10000 ** (-i / pairs));
        const values = random.floats(tokens * 3 * headDim);
        const positions = recording.i32("positions", [dimension], [...places]);
        const table = ropeTable(recording.program, {
          name: "table",
          positions,
          inverseFrequencies: recording.f32("frequencies", [pairs], frequencies),
          scale: 1.25,
        });
        const x = recording.state("x", "f32", [dimension, 3, headDim], values);
        rope(recording.program, { x, table, interleaved });
        const rotated = (at: Int32Array) =>
          rotate(values, { headDim, frequencies, interleaved, positions: at });
        // An angle of thousands is rounded to f32: half an ulp of 8191, times the value.
        const rows = [
          [positions, places],
          [x, values],
        ] as const;
        check(recording, tokens, { out: x, rows }, rotated(places), () => 0.01);
        const near = places.map((place) => place % 4);
        recording.set(positions, near);
        const expected = rotated(near);
        for (const { level, outcome } of recording.runEverywhere([tokens], [x]))
          expectClose(outcome.f32(x), expected, relative(expected, F32, 10), `${level}, small angles`);
      }
    });
  }
});

/** Three heads per token, each rotated by its token's position and scaled by 1.25. */
function rotate(
  values: Float32Array,
  options: {
    readonly headDim: number;
    readonly frequencies: Float32Array;
    readonly interleaved: boolean;
    readonly positions: Int32Array;
  },
): Float64Array {
  const { headDim, frequencies, interleaved, positions } = options;
  const out = Float64Array.from(values);
  for (let row = 0; row < values.length / headDim; row++) {
    frequencies.forEach((frequency, pair) => {
      const angle = positions[Math.floor(row / 3)]! * frequency;
      const first = row * headDim + (interleaved ? 2 * pair : pair);
      const second = first + (interleaved ? 1 : frequencies.length);
      const [a, b] = [values[first]!, values[second]!];
      out[first] = 1.25 * (a * Math.cos(angle) - b * Math.sin(angle));
      out[second] = 1.25 * (b * Math.cos(angle) + a * Math.sin(angle));
    });
  }
  return out;
}

const ACTIVATIONS = {
  silu: (x: number) => x / (1 + Math.exp(-x)),
  gelu_tanh: (x: number) => 0.5 * x * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  gelu: (x: number) => 0.5 * x * (1 + erf(x / Math.SQRT2)),
} as const;

/** The Maclaurin series where it converges well, else the continued fraction of erfc; both to float64. */
function erf(x: number): number {
  const a = Math.abs(x);
  if (a < 3) {
    let [term, sum] = [a, a];
    for (let n = 1; n < 80; n++) {
      term *= (-a * a) / n;
      sum += term / (2 * n + 1);
    }
    return Math.sign(x) * (2 / Math.sqrt(Math.PI)) * sum;
  }
  let fraction = a;
  for (let n = 60; n >= 1; n--) fraction = a + n / 2 / fraction;
  return Math.sign(x) * (1 - Math.exp(-a * a) / (Math.sqrt(Math.PI) * fraction));
}

describe("gated_mul", () => {
  for (const activation of ["silu", "gelu_tanh", "gelu"] as const) {
    test(activation, () => {
      const random = new Random(4);
      for (const width of [1, 9, 64, 100]) {
        for (const tokens of TOKENS) {
          const recording = new Recording();
          const dimension = recording.program.dimension("tokens", TOKENS_MAX);
          const values = random.floats(tokens * 2 * width, 6);
          const gateUp = recording.f32("gate_up", [dimension, 2 * width], values);
          const out = gatedMul(recording.program, { name: "out", gateUp, activation });
          const expected = Float64Array.from({ length: tokens * width }, (_, i) => {
            const at = Math.floor(i / width) * 2 * width + (i % width);
            return ACTIVATIONS[activation](values[at]!) * values[at + width]!;
          });
          // The tail of GELU is a small difference of numbers near one: absolute to the input's size.
          const tolerance = (i: number) => {
            const at = Math.floor(i / width) * 2 * width + (i % width);
            return F32 * Math.abs(values[at]! * values[at + width]!) + 1e-30;
          };
          check(recording, tokens, { out, rows: [[gateUp, values]] }, expected, tolerance);
        }
      }
    });
  }

  test("large gates neither overflow nor become NaN", () => {
    const values = Float32Array.from([-1e30, -200, -89, 0, 89, 200, 1e18, 100, 1, 1, 1, 1, 1, 1, 1, 1]);
    for (const activation of ["silu", "gelu_tanh", "gelu"] as const) {
      const recording = new Recording();
      const gateUp = recording.f32("gate_up", [recording.program.dimension("tokens", 1), 16], values);
      const out = gatedMul(recording.program, { name: "out", gateUp, activation });
      for (const { outcome } of recording.runEverywhere([1], [out])) {
        const result = outcome.f32(out);
        for (const value of result.subarray(0, 4)) expect(Math.abs(value)).toBeLessThan(1e-30);
        expect([...result.subarray(4)]).toEqual([89, 200, Math.fround(1e18), 100]);
      }
    }
  });
});

test("gather_rows takes any rows in any order", () => {
  const random = new Random(6);
  for (const width of [1, 13, 576]) {
    const recording = new Recording();
    const tokens = recording.program.dimension("tokens", TOKENS_MAX);
    const rows = recording.program.dimension("rows", 8);
    const values = random.floats(30 * width);
    const x = recording.f32("x", [tokens, width], values);
    const chosen = [29, 0, 7, 7, 13];
    const indices = recording.i32("indices", [rows], chosen);
    const out = gatherRows(recording.program, { name: "out", x, indices });
    const expected = Float64Array.from(
      chosen.flatMap((row) => [...values.subarray(row * width, (row + 1) * width)]),
    );
    for (const { level, outcome } of recording.runEverywhere([30, 5], [out]))
      expectClose(outcome.f32(out), expected, 0, level);
  }
});

test("soft_cap", () => {
  const random = new Random(11);
  for (const width of [1, 31, 1000]) {
    for (const tokens of TOKENS) {
      const recording = new Recording();
      const dimension = recording.program.dimension("tokens", TOKENS_MAX);
      const values = random.floats(tokens * width, 60);
      const x = recording.state("x", "f32", [dimension, width], values);
      softCap(recording.program, { x, cap: 30 });
      const expected = Float64Array.from(values, (value) => 30 * Math.tanh(value / 30));
      check(recording, tokens, { out: x, rows: [[x, values]] }, expected, relative(expected, F32));
    }
  }
});
