/** Matrix products in float64, with activations as they are or quantised as the matmul op defines it. */

import { DTYPES } from "../../../src/backend/dtype.ts";
import type { ActivationPrecision } from "../../../src/graph/builder.ts";
import type { WeightDtype } from "../random.ts";

/**
 * Of the bound of rounding: what fast activations may differ by on CUDA. x and, where they are block-quantised, the
 * weights are rounded once to bfloat16, each by at most 2^-9.
 */
export const FAST_ON_CUDA = 2 ** -8;

/** Elements of x, and of re-laid weights, that share a unit. */
const GROUP = 256;
const BLOCK = 32;

/** How a kind of backend quantises x: elements that share a scale, and what a step of an integer's high byte is. */
const INTEGERS = { cpu: { group: GROUP, highStep: 256 }, cuda: { group: 128, highStep: 128 } } as const;

/** The kind of backend that a level of the harness is of. */
export function kindOf(level: string): keyof typeof INTEGERS {
  return level.startsWith("cuda") ? "cuda" : "cpu";
}

/** Rounds to the nearest integer, ties to even; for magnitudes below 2^22. */
function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  if (fraction !== 0.5) return fraction < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/**
 * Rows of x as the op sees them beside block-quantised weights: integers of two bytes in groups, f32 scales; `fast`
 * keeps the nearest high bytes, but for groups in which one value stands far above the others.
 */
export function quantizeActivations(
  x: Float32Array,
  width: number,
  kind: keyof typeof INTEGERS,
  activations: ActivationPrecision = "precise",
): Float64Array {
  const { group, highStep } = INTEGERS[kind];
  const integerMax = 127 * highStep;
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += width) {
    for (let start = row; start < row + width; start += group) {
      const end = Math.min(start + group, row + width);
      const largest = x.subarray(start, end).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const squares = x.subarray(start, end).reduce((sum, value) => sum + value * value, 0);
      const hasLow = activations === "precise" || largest ** 2 > 8 ** 2 * (squares / group);
      const kept = (integer: number) => {
        const high = Math.floor(integer / highStep + 0.5) * highStep;
        // A low byte of -128 is one of -127.
        return hasLow ? Math.max(integer, high - 127) : high;
      };
      const inverse = largest > 0 ? Math.fround(integerMax / largest) : 0;
      const scale = Math.fround(largest / integerMax);
      for (let i = start; i < end; i++) out[i] = kept(roundToEven(Math.fround(x[i]! * inverse))) * scale;
    }
  }
  return out;
}

/** To the nearest bfloat16, ties to even. */
export function roundToBf16(x: Float32Array): Float64Array {
  const bits = new Uint32Array(x.slice().buffer);
  for (let i = 0; i < bits.length; i++) {
    const word = bits[i]!;
    bits[i] = (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  }
  return Float64Array.from(new Float32Array(bits.buffer));
}

/** `x[rows, k] @ weights[n, k]^T`: `[rows, n]`. */
export function multiply(x: Float64Array, weights: Float64Array, k: number): Float64Array {
  const rows = x.length / k;
  const n = weights.length / k;
  const out = new Float64Array(rows * n);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < n; column++) {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += x[row * k + i]! * weights[column * k + i]!;
      out[row * n + column] = sum;
    }
  }
  return out;
}

/** Per row: the largest magnitude of a row of weights times the sum of magnitudes of x, which bounds rounding. */
export function productBounds(x: Float64Array, weights: Float64Array, k: number): Float64Array {
  const rows = x.length / k;
  const n = weights.length / k;
  const sums = Float64Array.from({ length: rows }, (_, row) =>
    x.subarray(row * k, (row + 1) * k).reduce((sum, value) => sum + Math.abs(value), 0),
  );
  const largest = Float64Array.from({ length: n }, (_, column) =>
    weights
      .subarray(column * k, (column + 1) * k)
      .reduce((most, value) => Math.max(most, Math.abs(value)), 0),
  );
  return Float64Array.from({ length: rows * n }, (_, i) => sums[Math.floor(i / n)]! * largest[i % n]!);
}

/** Octaves below the largest scale of a group that re-laid MXFP4 keeps. */
const POWER_OCTAVES = 11;

/** Largest magnitude of an integer of the formats whose half-float scales become whole numbers when re-laid. */
const WHOLE_SCALES: Partial<Record<WeightDtype, number>> = { q4_0: 8, q4_1: 8, q5_0: 16 };
/** Integers of Q4_1 are counted from here, and a block's minimum becomes what this one stands for, in a half float. */
const Q4_1_CENTRE = 8;
/** Formats with whole numbers of 15 bits for scales where the tile unit multiplies them. */
const LONG_SCALES: readonly WeightDtype[] = ["q5_1", "q8_0", "iq4_nl"];

/** `value = fraction * 2^exponent`, the fraction at least 1/2 and below 1. */
function exponentOf(value: number): number {
  let exponent = Math.floor(Math.log2(value)) + 1;
  while (value >= 2 ** exponent) exponent++;
  while (value < 2 ** (exponent - 1)) exponent--;
  return exponent;
}

/**
 * Weights as the re-laid copy holds them. Scales of 32 elements are there whole numbers of one power of two per row
 * and 256 elements, the finest in which the largest, times the format's largest integer, fits a high byte of 256s
 * and a low byte, both signed, or fits 15 bits by itself. Scales that are powers of two stay as they are, but for those
 * far below the largest.
 */
export function relaidWeights(
  dtype: WeightDtype,
  bytes: Uint8Array,
  values: Float64Array,
  k: number,
  level: string,
): Float64Array {
  if (dtype === "mxfp4") return relaidPowers(bytes, values, k);
  const integerMax = WHOLE_SCALES[dtype];
  const isLong = level.startsWith("x86_64_v4_amx") && LONG_SCALES.includes(dtype);
  if (integerMax === undefined && !isLong) return values;
  const limit = integerMax === undefined ? 32767 : Math.floor((127 * 256 + 127) / integerMax);
  const { blockBytes } = DTYPES[dtype];
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const half = (at: number) => view.getFloat16(at, true);
  const out = values.slice();
  for (let row = 0; row < values.length; row += k) {
    for (let start = row; start < row + k; start += GROUP) {
      const end = Math.min(start + GROUP, row + k);
      const blocks = Array.from({ length: (end - start) / BLOCK }, (_, i) => start / BLOCK + i);
      const scales = blocks.map((block) => half(block * blockBytes));
      const largest = Math.max(...scales.map(Math.abs));
      if (largest === 0) continue;
      let exponent = exponentOf(largest) - exponentOf(limit);
      while (Math.round(largest / 2 ** exponent) > limit) exponent++;
      for (const [i, block] of blocks.entries()) {
        const scale = scales[i]!;
        if (scale === 0) continue;
        const whole = Math.sign(scale) * Math.round(Math.abs(scale) / 2 ** exponent);
        const minimum = dtype === "q4_1" || dtype === "q5_1" ? half(block * blockBytes + 2) : 0;
        const from = dtype === "q4_1" ? Q4_1_CENTRE : 0;
        const centre = from === 0 ? minimum : Math.f16round(minimum + from * scale);
        for (let j = block * BLOCK; j < (block + 1) * BLOCK; j++) {
          const integer = (values[j]! - minimum) / scale;
          out[j] = (integer - from) * whole * 2 ** exponent + centre;
        }
      }
    }
  }
  return out;
}

function relaidPowers(bytes: Uint8Array, values: Float64Array, k: number): Float64Array {
  const exponents = Array.from(
    { length: values.length / BLOCK },
    (_, i) => bytes[i * DTYPES.mxfp4.blockBytes]!,
  );
  return values.map((value, i) => {
    const row = i - (i % k);
    const start = row + Math.floor((i - row) / GROUP) * GROUP;
    const group = exponents.slice(start / BLOCK, Math.min(start + GROUP, row + k) / BLOCK);
    return Math.max(...group) - exponents[Math.floor(i / BLOCK)]! > POWER_OCTAVES ? 0 : value;
  });
}
