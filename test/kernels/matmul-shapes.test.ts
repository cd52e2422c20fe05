/**
 * The matmul op where a backend changes its ways: rows too long to prepare in place, more rows than a tile holds, a sum
 * shared by all that can share it, weights that begin where no word may.
 */

import { expect, test } from "bun:test";
import { DTYPES } from "../../src/backend/dtype.ts";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import { matmul } from "../../src/graph/record.ts";
import {
  expectClose,
  expectSameBits,
  GuardedMemory,
  LEVELS,
  PRODUCT_LEVELS,
  Recording,
  runWords,
} from "./harness.ts";
import { Random, randomWeights, type WeightDtype } from "./random.ts";
import { dequantize } from "./reference/dequantize.ts";
import { kindOf, multiply, productBounds, quantizeActivations } from "./reference/matmul.ts";

const TOLERANCE = 3e-7;

/** Activations as the op sees them beside weights of this type. */
function activations(dtype: WeightDtype, rows: Float32Array, k: number, level: string): Float64Array {
  if (DTYPES[dtype].blockElements === 1) return Float64Array.from(rows);
  return quantizeActivations(rows, k, kindOf(level));
}

for (const dtype of ["q4_k", "q6_k", "q8_0", "q4_0", "bf16", "f16"] as const) {
  test(`long rows, and many of them: ${dtype}`, () => {
    const k = 4352;
    const height = 18;
    const tokens = 70;
    const random = new Random(31);
    const recording = new Recording();
    const dimension = recording.program.dimension("tokens", tokens);
    const rows = random.floats(tokens * k);
    const bytes = randomWeights(random, dtype, height, k);
    const x = recording.f32("x", [dimension, k], rows);
    const weight = recording.input("weight", dtype, [height, k], bytes);
    const out = matmul(recording.program, { name: "out", x, weights: [weight], keep: true });
    const values = dequantize(dtype, bytes);
    for (const { level, devices } of LEVELS) {
      const all = recording.run(devices[1], [tokens]);
      // Two rows are held against float64, all numbers of rows against each other.
      for (const row of [3, 69]) {
        const own = rows.subarray(row * k, (row + 1) * k);
        const expected = multiply(activations(dtype, own, k, level), values, k);
        const bounds = productBounds(Float64Array.from(own), values, k);
        const actual = all.f32(out).subarray(row * height, (row + 1) * height);
        expectClose(actual, expected, (i) => TOLERANCE * bounds[i]!, `${level} row ${row}`);
      }
      for (const [first, count] of [
        [3, 1],
        [60, 3],
        [10, 6],
        [61, 8],
        [40, 20],
      ] as const) {
        recording.set(x, rows.subarray(first * k, (first + count) * k));
        const some = recording.run(devices[0], [count]).bytes(out);
        const part = all.bytes(out).subarray(first * height * 4, (first + count) * height * 4);
        expectSameBits(some, part, `${level} rows ${first} to ${first + count}`);
      }
      recording.set(x, rows);
    }
  });
}

for (const dtype of ["f32", "bf16", "f16"] as const) {
  test(`units of more rows than stay in a cache while tokens pass by: ${dtype}`, () => {
    const k = 1312;
    // One thread takes 128 at a time.
    const height = 1100;
    const tokens = 10;
    const random = new Random(35);
    const recording = new Recording();
    const dimension = recording.program.dimension("tokens", tokens);
    const rows = random.floats(tokens * k);
    const bytes = randomWeights(random, dtype, height, k);
    const x = recording.f32("x", [dimension, k], rows);
    const weight = recording.input("weight", dtype, [height, k], bytes);
    const out = matmul(recording.program, { name: "out", x, weights: [weight], keep: true });
    const values = dequantize(dtype, bytes);
    const expected = multiply(Float64Array.from(rows), values, k);
    const bounds = productBounds(Float64Array.from(rows), values, k);
    for (const { level, devices } of LEVELS) {
      const all = recording.run(devices[0], [tokens]);
      expectClose(all.f32(out), expected, (i) => TOLERANCE * bounds[i]!, level);
      for (const [first, count] of [
        [0, 1],
        [4, 2],
        [1, 5],
        [9, 1],
      ] as const) {
        recording.set(x, rows.subarray(first * k, (first + count) * k));
        const some = recording.run(devices[1], [count]).bytes(out);
        const part = all.bytes(out).subarray(first * height * 4, (first + count) * height * 4);
        expectSameBits(some, part, `${level} rows ${first} to ${first + count}`);
      }
      recording.set(x, rows);
    }
  });
}

for (const precision of ["precise", "fast"] as const) {
  test(`more rows than meet an unpacked panel at once, ${precision}`, () => {
    const height = 150;
    // A block of 512, a tile of 16, and one in which three are missing.
    const tokens = 541;
    for (const [dtype, k] of [
      ["q4_0", 576],
      ["q4_k", 768],
      ["q2_k", 768],
      ["q8_0", 544],
      ["q5_1", 608],
      ["bf16", 1056],
      ["f16", 1056],
    ] as [WeightDtype, number][]) {
      const random = new Random(33);
      const recording = new Recording();
      const dimension = recording.program.dimension("tokens", tokens);
      const rows = random.floats(tokens * k);
      const x = recording.f32("x", [dimension, k], rows);
      const weight = recording.input("weight", dtype, [height, k], randomWeights(random, dtype, height, k));
      const activations = precision;
      const out = matmul(recording.program, { name: "out", x, weights: [weight], activations, keep: true });
      // An emulated GPU takes minutes for so many.
      for (const { level, devices } of PRODUCT_LEVELS.filter(({ level }) => !level.startsWith("cuda"))) {
        const all = recording.run(devices[1], [tokens]).bytes(out);
        for (const [first, count] of [
          [0, 1],
          [505, 13],
          [509, 5],
          [528, 1],
          [540, 1],
        ] as const) {
          recording.set(x, rows.subarray(first * k, (first + count) * k));
          const some = recording.run(devices[0], [count]).bytes(out);
          const part = all.subarray(first * height * 4, (first + count) * height * 4);
          expectSameBits(some, part, `${level} ${dtype} rows ${first} to ${first + count}`);
        }
        recording.set(x, rows);
      }
    }
  });
}

/** Where a block's integers lie, and where its half float scale; of Q4_1 also where its minimum. */
const INTEGERS_AT: Partial<
  Record<WeightDtype, { first: number; end: number; scale: number; minimum?: number }>
> = {
  q4_0: { first: 2, end: 18, scale: 0 },
  q4_1: { first: 4, end: 20, scale: 0, minimum: 2 },
  q5_0: { first: 2, end: 22, scale: 0 },
  q8_0: { first: 2, end: 34, scale: 0 },
  q2_k: { first: 16, end: 80, scale: 80 },
  q3_k: { first: 0, end: 96, scale: 108 },
  q4_k: { first: 16, end: 144, scale: 0 },
  q5_k: { first: 16, end: 176, scale: 0 },
  q6_k: { first: 0, end: 192, scale: 208 },
};

/** Of the largest of its group: an integer that is all in the low byte, and the largest of those. */
const LOW_MAX = 127 / 32512;

test("the largest sums that integers can have", () => {
  for (const dtype of Object.keys(INTEGERS_AT) as WeightDtype[]) {
    const { first, end, scale, minimum } = INTEGERS_AT[dtype]!;
    const random = new Random(34);
    const k = 512;
    const height = 32;
    const bytes = randomWeights(random, dtype, height, k);
    const { blockBytes } = DTYPES[dtype];
    // Rows of the smallest integers and rows of the largest; a scale and a minimum that any layout holds exactly.
    for (let block = 0; block < bytes.length; block += blockBytes) {
      bytes.fill(Math.floor((block * height) / bytes.length) % 2 === 0 ? 0 : 255, block + first, block + end);
      const view = new DataView(bytes.buffer, bytes.byteOffset);
      view.setFloat16(block + scale, 1, true);
      if (minimum !== undefined) view.setFloat16(block + minimum, 1, true);
    }
    const values = dequantize(dtype, bytes);
    for (const tokens of [1, 3, 8, 16]) {
      // Largest high bytes; largest low bytes of one sign; both.
      const rows = Float32Array.from(
        { length: tokens * k },
        (_, i) => [1, i % 128 === 0 ? 1 : LOW_MAX, -1][Math.floor(i / k) % 3]!,
      );
      const bounds = productBounds(Float64Array.from(rows), values, k);
      const recording = new Recording();
      const dimension = recording.program.dimension("tokens", tokens);
      const x = recording.f32("x", [dimension, k], rows);
      const weight = recording.input("weight", dtype, [height, k], bytes);
      const out = matmul(recording.program, { name: "out", x, weights: [weight], keep: true });
      for (const { level, devices } of PRODUCT_LEVELS) {
        const actual = recording.run(devices[1], [tokens]).f32(out);
        const expected = multiply(activations(dtype, rows, k, level), values, k);
        expectClose(actual, expected, (i) => TOLERANCE * bounds[i]!, `${level} ${dtype} tokens ${tokens}`);
      }
    }
  }
});

test("weights that begin at any multiple of two bytes, or of an element's", () => {
  for (const [dtype, k] of [
    ["q4_1", 96],
    ["q4_k", 512],
    ["q2_k", 512],
    ["q6_k", 512],
    ["bf16", 64],
    ["f32", 36],
  ] as [WeightDtype, number][]) {
    const random = new Random(32);
    const height = 21;
    const tokens = 3;
    const rows = random.floats(tokens * k);
    const bytes = randomWeights(random, dtype, height, k);
    const values = dequantize(dtype, bytes);
    const bounds = productBounds(Float64Array.from(rows), values, k);
    for (const shift of dtype === "f32" ? [4, 12] : [2, 6, 8]) {
      const program = new ProgramBuilder();
      const memories = [rows.byteLength, bytes.length + shift].map(
        (size) => new GuardedMemory(size, "device"),
      );
      memories[0]!.region.set(new Uint8Array(rows.buffer));
      memories[1]!.region.set(bytes, shift);
      const bind = (
        name: string,
        type: WeightDtype,
        shape: [number, number],
        byteOffset: number,
        size: number,
      ) => {
        const slot = program.buffer(name, size);
        return program.bind(name, type, shape, { slot, byteOffset, readOnly: true });
      };
      const x = bind("x", "f32", [tokens, k], 0, rows.byteLength);
      const weight = bind("weight", dtype, [height, k], shift, bytes.length + shift);
      const out = matmul(program, { name: "out", x, weights: [weight], keep: true });
      const { words, plan } = program.finish();
      expect(out.storage.kind).toBe("arena");
      const place = out.storage.kind === "arena" ? plan.storages[out.storage.index]!.offset : 0;
      for (const { level, devices } of LEVELS) {
        for (const device of devices) {
          const arena = new GuardedMemory(Math.max(64, plan.bytes), "device");
          runWords(device, words, [arena, memories[0]!, memories[1]!], []);
          const actual = new Float32Array(arena.region.slice(place, place + tokens * height * 4).buffer);
          const expected = multiply(activations(dtype, rows, k, level), values, k);
          expectClose(actual, expected, (i) => TOLERANCE * (bounds[i]! + 2), `${level} ${dtype} at ${shift}`);
        }
      }
    }
  }
});
