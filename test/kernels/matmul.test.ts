/** The matmul op against float64: every weight type, awkward shapes, fused weights, biases and residuals. */

import { describe, expect, test } from "bun:test";
import { DTYPES } from "../../src/backend/dtype.ts";
import type { ActivationPrecision } from "../../src/graph/builder.ts";
import { matmul } from "../../src/graph/record.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { expectClose, expectSameBits, hasBf16Tiles, PRODUCT_LEVELS, Recording } from "./harness.ts";
import { Random, randomWeights, WEIGHT_DTYPES, type WeightDtype } from "./random.ts";
import { dequantize } from "./reference/dequantize.ts";
import {
  kindOf,
  multiply,
  productBounds,
  quantizeActivations,
  relaidWeights,
  roundToBf16,
} from "./reference/matmul.ts";

/** Of the bound of rounding: what f32 sums in 16 lanes, and integer products scaled in f32, may lose. */
const EXACT = 3e-7;
/** The same where the tile unit sums a thousand products one after the other. */
const EXACT_IN_TILES = 6e-7;
/** The same against activations that were not quantised: half a step of 15 bits, the coarsest, in every product. */
const LOOSE = 8e-5;
/** The same with scales rounded to 11 bits of the largest of their group. */
const LOOSE_RELAID = LOOSE + 2 ** -12;
/** Fast activations against exact ones: half a step of 8 bits in every product. */
const LOOSE_FAST = 1 / 127;

const TOKENS_MAX = 40;

/** Widths of x: below, at and above a register and a block, and odd where the type allows it. */
function widthsOf(dtype: WeightDtype): number[] {
  const { blockElements } = DTYPES[dtype];
  if (blockElements === 256) return [256, 768];
  return blockElements === 32 ? [32, 96, 576] : [1, 7, 33, 100, 576];
}

interface Case {
  readonly recording: Recording;
  readonly x: Tensor;
  readonly out: Tensor;
  readonly rows: Float32Array;
  readonly k: number;
  /** What a level should compute, to rounding. */
  readonly expected: (level: string) => Float64Array;
  readonly loose: Float64Array;
  readonly bounds: Float64Array;
}

interface CaseOptions {
  readonly dtypes: readonly WeightDtype[];
  readonly k: number;
  readonly heights: readonly number[];
  readonly tokens: number;
  readonly bias?: boolean;
  readonly residual?: boolean;
  readonly activations?: ActivationPrecision;
}

/** What a tile unit multiplies re-laid. */
function isHalf(dtype: WeightDtype): boolean {
  return dtype === "bf16" || dtype === "f16";
}

/** Puts the columns of `parts` side by side. */
function join(parts: readonly Float64Array[], heights: readonly number[], tokens: number): Float64Array {
  const width = heights.reduce((sum, height) => sum + height, 0);
  const out = new Float64Array(tokens * width);
  let column = 0;
  parts.forEach((part, index) => {
    const height = heights[index]!;
    for (let t = 0; t < tokens; t++) out.set(part.subarray(t * height, (t + 1) * height), t * width + column);
    column += height;
  });
  return out;
}

function build(random: Random, options: CaseOptions): Case {
  const { dtypes, k, heights, tokens, bias, residual, activations } = options;
  const recording = new Recording({ activations });
  const dimension = recording.program.dimension("tokens", TOKENS_MAX);
  const rows = random.floats(tokens * k);
  // Every other row has a value far above the others.
  if (activations === "fast") for (let i = Math.floor(k / 3); i < rows.length; i += 2 * k) rows[i]! *= 400;
  const x = recording.f32("x", [dimension, k], rows);
  const bytes = dtypes.map((dtype, i) => randomWeights(random, dtype, heights[i]!, k));
  const weights = dtypes.map((dtype, i) => recording.input(`weight${i}`, dtype, [heights[i]!, k], bytes[i]!));
  const biasValues = heights.map((height) => random.floats(height));
  const biases = bias
    ? heights.map((height, i) => (i === 1 ? undefined : recording.f32(`bias${i}`, [height], biasValues[i]!)))
    : undefined;
  const width = heights.reduce((sum, height) => sum + height, 0);
  const residualValues = random.floats(tokens * width);
  const residualTensor = residual ? recording.f32("residual", [dimension, width], residualValues) : undefined;
  const out = matmul(recording.program, {
    name: "out",
    x,
    weights,
    biases,
    residual: residualTensor,
    keep: true,
  });

  const plain = Float64Array.from(rows);
  const values = dtypes.map((dtype, i) => dequantize(dtype, bytes[i]!));
  const added = (product: Float64Array, i: number) =>
    product.map((value, at) => value + (bias && i !== 1 ? biasValues[i]![at % heights[i]!]! : 0));
  const rounded = activations === "fast" ? roundToBf16(rows) : plain;
  const total = (xOf: (dtype: WeightDtype) => Float64Array, weightValues = values) =>
    join(
      dtypes.map((dtype, i) => added(multiply(xOf(dtype), weightValues[i]!, k), i)),
      heights,
      tokens,
    ).map((value, at) => value + (residual ? residualValues[at]! : 0));
  const isBlock = (dtype: WeightDtype) => DTYPES[dtype].blockElements > 1;
  return {
    recording,
    x,
    out,
    rows,
    k,
    expected: (level) => {
      const isRelaid = level.endsWith("repacked");
      const quantized = quantizeActivations(rows, k, kindOf(level), activations);
      // Where the tile unit multiplies bf16 and f16 weights.
      const halves = isRelaid && hasBf16Tiles(level) ? rounded : plain;
      const relaid = dtypes.map((dtype, i) => relaidWeights(dtype, bytes[i]!, values[i]!, k, level));
      return total(
        (dtype) => (isBlock(dtype) ? quantized : isHalf(dtype) ? halves : plain),
        isRelaid ? relaid : values,
      );
    },
    loose: total(() => plain),
    bounds: join(
      values.map((value) => productBounds(plain, value, k)),
      heights,
      tokens,
    ).map((bound) => bound + 2),
  };
}

function expectCorrect(random: Random, options: CaseOptions): void {
  const { recording, out, expected, loose, bounds } = build(random, options);
  for (const { level, outcome } of recording.runEverywhere([options.tokens], [out], PRODUCT_LEVELS)) {
    const what = `${level} ${options.dtypes} k ${options.k} heights ${options.heights} tokens ${options.tokens}`;
    const isRelaid = level.endsWith("repacked");
    const hasTiles = isRelaid && hasBf16Tiles(level);
    const exact = hasTiles && options.dtypes.some(isHalf) ? EXACT_IN_TILES : EXACT;
    const isFast = options.activations === "fast";
    // What fast means on a GPU is the GPU's affair.
    const isDefined = !(isFast && level.startsWith("cuda"));
    if (isDefined) expectClose(outcome.f32(out), expected(level), (i) => exact * bounds[i]!, what);
    const tolerance = isFast ? LOOSE_FAST : isRelaid ? LOOSE_RELAID : LOOSE;
    expectClose(outcome.f32(out), loose, (i) => tolerance * bounds[i]!, `${what}, unquantised`);
  }
}

test("there is a level to test", () => {
  expect(PRODUCT_LEVELS.length).toBeGreaterThan(0);
});

describe("products with each weight type", () => {
  for (const dtype of WEIGHT_DTYPES) {
    test(dtype, () => {
      const random = new Random(DTYPES[dtype].code + 1);
      for (const k of widthsOf(dtype)) {
        for (const [height, tokens] of [
          [1, 1],
          [5, 2],
          [17, 3],
          [131, 1],
          [37, 19],
          [16, TOKENS_MAX],
        ] as const) {
          expectCorrect(random, { dtypes: [dtype], k, heights: [height], tokens });
        }
      }
    });
  }
});

describe("products with fast activations", () => {
  for (const dtype of WEIGHT_DTYPES) {
    test(dtype, () => {
      const random = new Random(DTYPES[dtype].code + 101);
      const k = widthsOf(dtype).at(-1)!;
      for (const [height, tokens] of [
        [33, 1],
        [17, 3],
        [37, 19],
      ] as const) {
        expectCorrect(random, { dtypes: [dtype], k, heights: [height], tokens, activations: "fast" });
      }
    });
  }
});

/** Scales of the rows, how large x is, and whether f32 may overflow on the way to a sum that it could hold. */
const EXTREME_POWERS = [
  [[0, 1, 2, 3, 40], 2 ** 100, false],
  [[200, 215, 224], 2 ** -80, false],
  [[253, 254, 255], 2 ** -100, true],
] as const;

describe("MXFP4 at the ends of its scales", () => {
  for (const [exponents, magnitude, mayOverflow] of EXTREME_POWERS) {
    test(`${exponents}`, () => {
      const random = new Random(12);
      const k = 160;
      const tokens = 14;
      const recording = new Recording();
      const dimension = recording.program.dimension("tokens", TOKENS_MAX);
      const rows = random.floats(tokens * k, magnitude);
      const x = recording.f32("x", [dimension, k], rows);
      const bytes = randomWeights(random, "mxfp4", exponents.length, k);
      const { blockBytes } = DTYPES.mxfp4;
      const rowBytes = bytes.length / exponents.length;
      for (let at = 0; at < bytes.length; at += blockBytes) bytes[at] = exponents[Math.floor(at / rowBytes)]!;
      const weight = recording.input("weight", "mxfp4", [exponents.length, k], bytes);
      const out = matmul(recording.program, { name: "out", x, weights: [weight], keep: true });
      const values = dequantize("mxfp4", bytes);
      const bounds = productBounds(Float64Array.from(rows), values, k);
      for (const { level, outcome } of recording.runEverywhere([tokens], [out], PRODUCT_LEVELS)) {
        const actual = outcome.f32(out);
        const expected = multiply(quantizeActivations(rows, k, kindOf(level)), values, k);
        // What overflows is infinite or NaN, never another number.
        const kept = actual.map((value, i) =>
          mayOverflow && !Number.isFinite(value) ? expected[i]! : value,
        );
        expectClose(kept, expected, (i) => EXACT * bounds[i]!, level);
        if (!level.startsWith("cuda")) expectClose(actual, expected, (i) => EXACT * bounds[i]!, level);
      }
    });
  }
});

describe("fused", () => {
  test("weights of different types, with biases and a residual", () => {
    const random = new Random(7);
    for (const dtypes of [
      ["q4_k", "q4_k", "q6_k"],
      ["q4_1", "f16", "q8_0"],
      ["bf16", "f32"],
    ] as WeightDtype[][]) {
      for (const tokens of [1, 4, 21]) {
        const heights = [33, 9, 20].slice(0, dtypes.length);
        expectCorrect(random, { dtypes, k: 256, heights, tokens, bias: true, residual: true });
      }
    }
  });

  test("a view of columns as x", () => {
    const random = new Random(8);
    const recording = new Recording();
    const dimension = recording.program.dimension("tokens", 8);
    const rows = random.floats(5 * 224);
    const whole = recording.f32("whole", [dimension, 224], rows);
    const bytes = randomWeights(random, "q8_0", 11, 96);
    const weight = recording.input("weight", "q8_0", [11, 96], bytes);
    const x = recording.program.columns(whole, 64, 96);
    const out = matmul(recording.program, { name: "out", x, weights: [weight], keep: true });
    const columns = Float32Array.from(
      { length: 5 * 96 },
      (_, i) => rows[Math.floor(i / 96) * 224 + 64 + (i % 96)]!,
    );
    const values = dequantize("q8_0", bytes);
    const bounds = productBounds(Float64Array.from(columns), values, 96);
    for (const { level, outcome } of recording.runEverywhere([5], [out], PRODUCT_LEVELS)) {
      const weights = level.endsWith("repacked") ? relaidWeights("q8_0", bytes, values, 96, level) : values;
      const expected = multiply(quantizeActivations(columns, 96, kindOf(level)), weights, 96);
      expectClose(outcome.f32(out), expected, (i) => EXACT * bounds[i]!, level);
    }
  });
});

describe("a row alone is the row among others, bit for bit", () => {
  for (const [dtype, activations] of WEIGHT_DTYPES.flatMap((type) => [
    [type, "precise"] as const,
    [type, "fast"] as const,
  ])) {
    test(`${dtype}, ${activations}`, () => {
      // The last group of 256 elements is not whole where the type allows it.
      const k = DTYPES[dtype].blockElements === 256 ? 512 : 480;
      const height = 45;
      const tokens = 23;
      const { recording, x, out, rows } = build(new Random(9), {
        dtypes: [dtype],
        k,
        heights: [height],
        tokens,
        activations,
      });
      for (const { level, devices } of PRODUCT_LEVELS) {
        const deterministic = { deterministic: true };
        const all = recording.run(devices[1], [tokens], deterministic).bytes(out);
        for (const [first, count] of [
          [0, 1],
          [7, 1],
          [22, 1],
          [3, 2],
          [5, 3],
          [2, 4],
          [17, 5],
          [0, 6],
          [13, 7],
          [11, 8],
          [4, 9],
          [1, 11],
          [6, 12],
          [3, 18],
        ] as const) {
          recording.set(x, rows.subarray(first * k, (first + count) * k));
          const some = recording.run(devices[0], [count], deterministic).bytes(out);
          const part = all.subarray(first * height * 4, (first + count) * height * 4);
          expectSameBits(some, part, `${level} ${dtype} rows ${first} to ${first + count}`);
        }
        recording.set(x, rows);
      }
    });
  }
});
