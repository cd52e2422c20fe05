/** The 8-bit floats of the KV cache, number by number: every one as it is read, every border as it is written. */

import { expect, test } from "bun:test";
import { embed, matmul } from "../../src/graph/record.ts";
import { kvWrite, pagedAttention } from "../../src/graph/record-attention.ts";
import { expectClose, LEVELS, Recording, runWords } from "./harness.ts";
import { dequantize } from "./reference/dequantize.ts";

const NAN = 0x7f;
const LARGEST = 0x7e;
const PATTERNS = Uint8Array.from({ length: 256 }, (_, pattern) => pattern);
const VALUES = dequantize("f8e4m3", PATTERNS);

/** The f32 after a positive one, or before it. */
function neighbour(value: number, step: 1 | -1): number {
  const bits = new Int32Array(new Float32Array([value]).buffer);
  return new Float32Array(Int32Array.of(bits[0]! + step).buffer)[0]!;
}

/** Positive f32 values, each with the pattern that it is stored as. */
function* encodings(): Generator<readonly [number, number]> {
  for (let low = 0; low <= LARGEST; low++) {
    yield [VALUES[low]!, low];
    if (low === LARGEST) break;
    const border = (VALUES[low]! + VALUES[low + 1]!) / 2;
    yield [border, low % 2 === 0 ? low : low + 1];
    yield [neighbour(border, -1), low];
    yield [neighbour(border, 1), low + 1];
  }
  yield [2 ** -149, 0];
  yield [2 ** -126, 0];
  for (const beyond of [neighbour(448, 1), 463, 464, 465, 480, 1e30, Number.POSITIVE_INFINITY]) {
    yield [beyond, LARGEST];
  }
}

test("the reference's numbers are those of the specification", () => {
  expect([VALUES[1], VALUES[7], VALUES[8], VALUES[0x38], VALUES[LARGEST]]).toEqual([
    2 ** -9,
    7 * 2 ** -9,
    2 ** -6,
    1,
    448,
  ]);
  expect([VALUES[0x81], VALUES[0xfe]]).toEqual([-(2 ** -9), -448]);
  expect(PATTERNS.filter((pattern) => Number.isNaN(VALUES[pattern]))).toEqual(Uint8Array.of(NAN, 0xff));
});

test("kv_write rounds every border to nearest even, holds at 448 and keeps NaN", () => {
  const cases = [...encodings()].flatMap(([value, pattern]) => [
    [value, pattern] as const,
    [-value, pattern | 0x80] as const,
  ]);
  cases.push([Number.NaN, NAN]);
  // Rows of an odd width have ends behind the last whole vector.
  const width = 37;
  const rows = Math.ceil(cases.length / width);
  const values = new Float32Array(rows * width);
  const expected = new Uint8Array(rows * width);
  cases.forEach(([value, pattern], index) => {
    values[index] = value;
    expected[index] = pattern;
  });
  const recording = new Recording();
  const tokens = recording.program.dimension("tokens", rows);
  const keys = recording.state("keys", "f8e4m3", [1, 1, rows, width]);
  const reversed = recording.state("values", "f8e4m3", [1, 1, rows, width]);
  kvWrite(recording.program, {
    k: recording.f32("k", [tokens, 1, width], values),
    v: recording.f32("v", [tokens, 1, width], values.slice().reverse()),
    slotMapping: recording.i32(
      "slots",
      [tokens],
      Array.from({ length: rows }, (_, row) => row),
    ),
    cache: { keys, values: reversed },
  });
  for (const { outcome } of recording.runEverywhere([rows], [keys, reversed])) {
    expect(outcome.bytes(keys)).toEqual(expected);
    expect(outcome.bytes(reversed)).toEqual(expected.slice().reverse());
  }
});

const SIDE = 16;

interface OneRow {
  readonly keys: Uint8Array;
  readonly values: Uint8Array;
  readonly context: number;
  readonly q: Float32Array;
}

/** One token of 256 heads, sixteen to each of sixteen KV heads of sixteen dimensions, over up to two keys. */
function attend({ keys, values, context, q }: OneRow) {
  const recording = new Recording();
  const { program } = recording;
  const tokens = program.dimension("tokens", 1);
  const seqs = program.dimension("seqs", 1);
  const shape = [1, SIDE, 2, SIDE] as const;
  const out = pagedAttention(program, {
    name: "out",
    q: recording.f32("q", [tokens, SIDE * SIDE, SIDE], q),
    cache: {
      keys: recording.input("keys", "f8e4m3", [...shape], keys),
      values: recording.input("values", "f8e4m3", [...shape], values),
    },
    blockTables: recording.i32("tables", [seqs, 1], [0]),
    sequenceStarts: recording.i32("starts", [{ symbol: seqs, plus: 1 }], [0, 1]),
    contextLengths: recording.i32("contexts", [seqs], [context]),
    scale: 1,
    slidingWindow: 0,
    softCap: 0,
  });
  return recording
    .runEverywhere([1, 1], [out])
    .map(({ level, outcome }) => ({ level, out: outcome.f32(out) }));
}

/** A cache whose slot of each KV head holds sixteen of `patterns`; the other slot holds zeros. */
function slot(index: 0 | 1, patterns: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(2 * SIDE * SIDE);
  for (let head = 0; head < SIDE; head++) {
    bytes.set(patterns.subarray(head * SIDE, (head + 1) * SIDE), (2 * head + index) * SIDE);
  }
  return bytes;
}

test("every pattern is read right as a value", () => {
  // A row that sees one key is that key's value.
  const q = new Float32Array(SIDE ** 3).fill(0.5);
  const keys = new Uint8Array(2 * SIDE * SIDE).fill(0x38);
  for (const { level, out } of attend({ keys, values: slot(0, PATTERNS), context: 1, q })) {
    for (let head = 0; head < SIDE * SIDE; head++) {
      for (let dim = 0; dim < SIDE; dim++) {
        const expected = VALUES[Math.floor(head / SIDE) * SIDE + dim]!;
        const actual = out[head * SIDE + dim]!;
        if (Number.isNaN(expected) ? Number.isNaN(actual) : actual === expected) continue;
        throw new Error(`${level}, head ${head}, dimension ${dim}: ${actual} instead of ${expected}`);
      }
    }
  }
});

/** A query for each pattern that makes its score 1, or -1, and 0 for a pattern without a value. */
function scoringQueries(): Float32Array {
  const q = new Float32Array(SIDE ** 3);
  VALUES.forEach((value, pattern) => {
    q[pattern * SIDE + (pattern % SIDE)] = Number.isNaN(value) || value === 0 ? 1 : 1 / Math.abs(value);
  });
  return q;
}

test("every pattern is read right as a key", () => {
  // The first key scores 0 and has the value 0, the second scores 1, 0 or -1 and has the value 1.
  const numbers = PATTERNS.map((pattern) => (Number.isNaN(VALUES[pattern]!) ? 0 : pattern));
  const ones = new Uint8Array(SIDE * SIDE).fill(0x38);
  const cache = { keys: slot(1, numbers), values: slot(1, ones), context: 2, q: scoringQueries() };
  const expected = new Float64Array(SIDE ** 3);
  VALUES.forEach((value, pattern) => {
    const score = Number.isNaN(value) ? 0 : Math.sign(value);
    expected.fill(1 / (1 + Math.exp(-score)), pattern * SIDE, (pattern + 1) * SIDE);
  });
  // A tile unit may take 16 bits of a query; a neighbouring pattern would move the result by 1e-2.
  for (const { level, out } of attend(cache)) expectClose(out, expected, 6e-6, level);
});

test("a key that is no number makes its rows none", () => {
  for (const pattern of [NAN, 0xff]) {
    // In the fourth of sixteen KV heads.
    const patterns = new Uint8Array(SIDE * SIDE);
    patterns[3 * SIDE + 5] = pattern;
    const ones = new Uint8Array(SIDE * SIDE).fill(0x38);
    const cache = { keys: slot(1, patterns), values: slot(1, ones), context: 2, q: scoringQueries() };
    for (const { level, out } of attend(cache)) {
      for (let head = 0; head < SIDE * SIDE; head++) {
        const isNone = Number.isNaN(out[head * SIDE]!);
        const touched = Math.floor(head / SIDE) === 3;
        if (isNone !== touched) throw new Error(`${level}, head ${head}: ${out[head * SIDE]}`);
      }
    }
  }
});

test("it is no type of weights: refused when recorded, and by every library", () => {
  const recording = new Recording();
  const { program } = recording;
  const tokens = program.dimension("tokens", 1);
  const weight = recording.input("weight", "f8e4m3", [4, 8], new Uint8Array(32));
  const x = recording.f32("x", [tokens, 8], new Float32Array(8));
  const ids = recording.i32("ids", [tokens], [0]);
  expect(() => matmul(program, { name: "out", x, weights: [weight] })).toThrow(
    "matmul: weight f8e4m3 [4, 8] has a type of KV caches alone",
  );
  expect(() => embed(program, { name: "out", table: weight, ids, scale: 1 })).toThrow(
    "embed: weight f8e4m3 [4, 8] has a type of KV caches alone",
  );
  const out = recording.state("out", "f32", [tokens, 4]);
  program.record("matmul", { out, x, weight0: weight }, { activations: 0 });
  for (const { devices } of LEVELS) {
    const run = () => runWords(devices[0], program.finish().words, recording.memories(), [1]);
    expect(run).toThrow("weight is f8e4m3, a type of KV caches alone");
  }
});
