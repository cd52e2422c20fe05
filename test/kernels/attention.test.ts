/** Cache writes and paged attention as a program, against float64 and, bit for bit, against itself in other batches. */

import { describe, expect, test } from "bun:test";
import type { DType } from "../../src/backend/dtype.ts";
import { kvWrite, pagedAttention } from "../../src/graph/record-attention.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import {
  ATTENTION_LEVELS,
  expectClose,
  expectSameBits,
  hasBf16Tiles,
  LEVELS,
  type LevelDevices,
  Recording,
} from "./harness.ts";
import { Random } from "./random.ts";
import { attend } from "./reference/attention.ts";
import { dequantize } from "./reference/dequantize.ts";

/** Values lie mostly in [-1, 1) and reach 8. */
const TOLERANCE = 1.5e-5;
/** Where products may take 16 bits of each number: scores here reach 20. */
const TILE_TOLERANCE = 6e-5;
const TOKENS_MAX = 640;
/** Positions a sequence has values for. */
const POSITIONS_MAX = 320;
const SEQUENCES_MAX = 6;

const CACHE_TYPES = ["f32", "f16", "bf16", "f8e4m3"] as const;
type CacheType = (typeof CACHE_TYPES)[number];

interface Sequence {
  /** Decides every value of the sequence, so that it can be run again in another batch. */
  readonly seed: number;
  readonly tokens: number;
  readonly context: number;
}

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly blockSize: number;
  readonly cacheType: CacheType;
  readonly slidingWindow?: number;
  readonly softCap?: number;
  readonly sinks?: boolean;
}

interface Case {
  readonly recording: Recording;
  readonly out: Tensor;
  readonly caches: readonly [Tensor, Tensor];
  readonly dims: readonly [number, number];
  readonly sinks: Float32Array | undefined;
  readonly q: Float32Array;
  readonly blockTables: Int32Array;
  readonly blocksPerSequence: number;
}

/**
 * Without `caches`, a program that stores all keys and values of the sequences; with what that one stored, a
 * program in which the last `tokens` rows of each sequence attend to them.
 */
function build(
  shape: Shape,
  sequences: readonly Sequence[],
  caches?: readonly [Uint8Array, Uint8Array],
): Case {
  const { heads, kvHeads, headDim, blockSize, cacheType } = shape;
  const longest = Math.max(...sequences.map(({ context }) => context));
  const blocksPerSequence = Math.ceil(longest / blockSize);
  const blockCount = sequences.length * blocksPerSequence + 1;
  const blockTables = new Int32Array(sequences.length * blocksPerSequence).fill(-1);
  sequences.forEach(({ context }, s) => {
    for (let b = 0; b * blockSize < context; b++) {
      blockTables[s * blocksPerSequence + b] = blockCount - 1 - (b * sequences.length + s);
    }
  });
  const recording = new Recording();
  const { program } = recording;
  const tokens = program.dimension("tokens", TOKENS_MAX);
  const seqs = program.dimension("seqs", SEQUENCES_MAX);
  const cacheShape = [blockCount, kvHeads, blockSize, headDim] as const;
  const writing = caches === undefined;
  const keys = recording.state("keys", cacheType, [...cacheShape], caches?.[0]);
  const values = recording.state("values", cacheType, [...cacheShape], caches?.[1]);
  const rows = sequences.map(({ seed, tokens: count, context }) => {
    const random = new Random(seed);
    const all = (width: number, scale: number) => random.floats(POSITIONS_MAX * width, scale);
    const [q, k, v] = [all(heads * headDim, 3), all(kvHeads * headDim, 1), all(kvHeads * headDim, 1)];
    return { q, k, v, first: writing ? 0 : context - count, end: context };
  });
  const take = (name: "q" | "k" | "v", width: number) => {
    const parts = rows.map((row) => row[name].subarray(row.first * width, row.end * width));
    const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
    let at = 0;
    for (const part of parts) {
      out.set(part, at);
      at += part.length;
    }
    return out;
  };
  const count = rows.reduce((sum, { first, end }) => sum + end - first, 0);
  const q = take("q", heads * headDim);
  const sinks = shape.sinks ? new Random(99).floats(heads, 2) : undefined;
  let out: Tensor;
  if (writing) {
    const slots = rows.flatMap(({ end }, s) =>
      Array.from(
        { length: end },
        (_, p) =>
          blockTables[s * blocksPerSequence + Math.floor(p / blockSize)]! * blockSize + (p % blockSize),
      ),
    );
    kvWrite(program, {
      k: recording.f32("k", [tokens, kvHeads, headDim], take("k", kvHeads * headDim)),
      v: recording.f32("v", [tokens, kvHeads, headDim], take("v", kvHeads * headDim)),
      slotMapping: recording.i32("slots", [tokens], slots),
      cache: { keys, values },
    });
    out = keys;
  } else {
    const starts = [0];
    for (const { first, end } of rows) starts.push(starts.at(-1)! + end - first);
    const padded = new Int32Array(SEQUENCES_MAX * blocksPerSequence).fill(-1);
    padded.set(blockTables);
    out = pagedAttention(program, {
      name: "out",
      q: recording.f32("q", [tokens, heads, headDim], q),
      cache: { keys, values },
      blockTables: recording.i32("tables", [seqs, blocksPerSequence], [...padded]),
      sequenceStarts: recording.i32("starts", [{ symbol: seqs, plus: 1 }], starts),
      contextLengths: recording.i32(
        "contexts",
        [seqs],
        sequences.map(({ context }) => context),
      ),
      scale: 1 / Math.sqrt(headDim),
      slidingWindow: shape.slidingWindow ?? 0,
      softCap: shape.softCap ?? 0,
      sinks: sinks === undefined ? undefined : recording.f32("sinks", [heads], sinks),
    });
  }
  const dims = [count, writing ? 0 : sequences.length] as const;
  return { recording, out, caches: [keys, values], dims, sinks, q, blockTables, blocksPerSequence };
}

/** Stores the keys and values of sequences with `kv_write` on one device. */
function store(shape: Shape, sequences: readonly Sequence[], level: LevelDevices): [Uint8Array, Uint8Array] {
  const { recording, caches, dims } = build(shape, sequences);
  const outcome = recording.run(level.devices[1], dims);
  return [outcome.bytes(caches[0]), outcome.bytes(caches[1])];
}

/** The reference of every row, from the bytes the cache holds. */
function reference(
  shape: Shape,
  sequences: readonly Sequence[],
  cache: readonly [Uint8Array, Uint8Array],
  c: Case,
) {
  const { heads, kvHeads, headDim, blockSize, cacheType } = shape;
  return attend({
    heads,
    kvHeads,
    headDim,
    blockSize,
    scale: Math.fround(1 / Math.sqrt(headDim)),
    slidingWindow: shape.slidingWindow ?? 0,
    softCap: shape.softCap ?? 0,
    ...(c.sinks === undefined ? {} : { sinks: c.sinks }),
    sequences,
    blockTables: c.blockTables,
    blocksPerSequence: c.blocksPerSequence,
    q: c.q,
    keys: dequantize(cacheType as DType, cache[0]),
    values: dequantize(cacheType as DType, cache[1]),
  });
}

function expectCorrect(shape: Shape, sequences: readonly Sequence[]): void {
  const cache = store(shape, sequences, ATTENTION_LEVELS[0]!);
  const c = build(shape, sequences, cache);
  const expected = reference(shape, sequences, cache, c);
  for (const { level, outcome } of c.recording.runEverywhere(c.dims, [c.out], ATTENTION_LEVELS)) {
    const tolerance = shape.cacheType !== "f32" && hasBf16Tiles(level) ? TILE_TOLERANCE : TOLERANCE;
    expectClose(outcome.f32(c.out), expected, tolerance, `${level} ${JSON.stringify(shape)}`);
  }
}

const MIXED: readonly Sequence[] = [
  { seed: 1, tokens: 1, context: 33 },
  { seed: 2, tokens: 40, context: 40 },
  { seed: 3, tokens: 1, context: 1 },
  { seed: 4, tokens: 5, context: 64 },
];

const LONG: readonly Sequence[] = [
  { seed: 5, tokens: 1, context: 290 },
  { seed: 6, tokens: 30, context: 90 },
];

describe("kv_write", () => {
  for (const cacheType of CACHE_TYPES) {
    test(`rounds to the nearest ${cacheType}, writes its slots and nothing else`, () => {
      for (const level of LEVELS) {
        const random = new Random(31);
        const recording = new Recording();
        const tokens = recording.program.dimension("tokens", 8);
        const keys = recording.state("keys", cacheType, [3, 2, 4, 24]);
        const values = recording.state("values", cacheType, [3, 2, 4, 24]);
        const k = random.floats(5 * 48, 2);
        const v = random.floats(5 * 48, 2);
        k[3] = Number.POSITIVE_INFINITY;
        k[4] = 1e-6;
        k[5] = -0;
        kvWrite(recording.program, {
          k: recording.f32("k", [tokens, 2, 24], k),
          v: recording.f32("v", [tokens, 2, 24], v),
          slotMapping: recording.i32("slots", [tokens], [5, -1, 11, 0, 6]),
          cache: { keys, values },
        });
        const outcome = recording.run(level.devices[1], [5]);
        for (const [tensor, source] of [
          [keys, k],
          [values, v],
        ] as const) {
          const stored = dequantize(cacheType, outcome.bytes(tensor));
          const expected = new Float64Array(3 * 2 * 4 * 24).fill(Number.NaN);
          [5, -1, 11, 0, 6].forEach((slot, token) => {
            for (let i = 0; slot >= 0 && i < 48; i++) {
              const at = ((Math.floor(slot / 4) * 2 + Math.floor(i / 24)) * 4 + (slot % 4)) * 24 + (i % 24);
              expected[at] = nearest(cacheType, source[token * 48 + i]!);
            }
          });
          expect([...stored]).toEqual([...expected]);
        }
      }
    });
  }
});

/** The finite numbers of the 8-bit float that are not negative, in order. */
const FLOAT8 = dequantize(
  "f8e4m3",
  Uint8Array.from({ length: 127 }, (_, pattern) => pattern),
);

/** Rounds to nearest, ties to even, as the standard library and the definitions of the other types do. */
function nearest(type: CacheType, value: number): number {
  if (type === "f8e4m3") {
    const magnitude = Math.min(Math.abs(value), FLOAT8.at(-1)!);
    const above = FLOAT8.findIndex((number) => number >= magnitude);
    const [low, high] = [FLOAT8[Math.max(0, above - 1)]!, FLOAT8[above]!];
    const isTie = magnitude - low === high - magnitude;
    const takesHigh = isTie ? above % 2 === 0 : high - magnitude < magnitude - low;
    const rounded = takesHigh ? high : low;
    return value < 0 || Object.is(value, -0) ? -rounded : rounded;
  }
  const view = new DataView(new ArrayBuffer(4));
  if (type === "f32") return value;
  if (type === "f16") {
    view.setFloat16(0, value);
    return view.getFloat16(0);
  }
  view.setFloat32(0, value);
  const bits = view.getUint32(0);
  const [low, odd] = [bits & 0xffff, (bits >>> 16) & 1];
  const up = low > 0x8000 || (low === 0x8000 && odd === 1) ? 1 : 0;
  view.setUint32(0, (((bits >>> 16) + up) << 16) >>> 0);
  return view.getFloat32(0);
}

describe("attention against float64", () => {
  for (const cacheType of CACHE_TYPES) {
    test(`${cacheType}, head dimensions`, () => {
      for (const headDim of [8, 20, 64, 80, 96, 128, 256]) {
        expectCorrect({ heads: 6, kvHeads: 2, headDim, blockSize: 16, cacheType }, MIXED);
      }
    });
  }

  test("group sizes and block sizes", () => {
    for (const [heads, kvHeads] of [
      [9, 3],
      [4, 4],
      [8, 1],
      [71, 1],
    ] as const) {
      for (const blockSize of [1, 7, 32, 512]) {
        expectCorrect({ heads, kvHeads, headDim: 16, blockSize, cacheType: "f16" }, MIXED);
      }
    }
  });

  test("window, cap and sinks, alone and together, past a range of keys", () => {
    for (let features = 0; features < 8; features++) {
      const shape: Shape = {
        heads: 4,
        kvHeads: 2,
        headDim: 32,
        blockSize: 32,
        cacheType: "bf16",
        slidingWindow: features & 1 ? 37 : 0,
        softCap: features & 2 ? 2 : 0,
        sinks: (features & 4) !== 0,
      };
      expectCorrect(shape, LONG);
    }
  });
});

test("a row is the same alone, in a batch and in any chunk, bit for bit", () => {
  for (const [cacheType, slidingWindow, heads] of [
    ["f16", 0, 6],
    ["f16", 50, 6],
    ["f8e4m3", 0, 6],
    // Enough heads of a group for the tile unit.
    ["f16", 50, 14],
    ["bf16", 0, 14],
  ] as const) {
    const shape: Shape = { heads, kvHeads: 2, headDim: 64, blockSize: 32, cacheType, slidingWindow };
    const whole: readonly Sequence[] = [{ seed: 21, tokens: 300, context: 300 }];
    const width = heads * 64 * 4;
    for (const level of ATTENTION_LEVELS) {
      const base = build(shape, whole, store(shape, whole, level));
      const rows = base.recording.run(level.devices[1], base.dims).bytes(base.out);
      for (const [tokens, context] of [
        [1, 300],
        [1, 1],
        [1, 257],
        [3, 256],
        [64, 290],
        [299, 299],
      ] as const) {
        const batch: readonly Sequence[] = [
          { seed: 22, tokens: 1, context: 270 },
          { seed: 21, tokens, context },
          { seed: 23, tokens: 9, context: 9 },
        ];
        for (const [sequences, device, skip] of [
          [batch, level.devices[0], 1],
          [[batch[1]!], level.devices[1], 0],
        ] as const) {
          const c = build(shape, sequences, store(shape, sequences, level));
          const some = c.recording.run(device, c.dims).bytes(c.out);
          const actual = some.subarray(skip * width, (skip + tokens) * width);
          const expected = rows.subarray((context - tokens) * width, context * width);
          expectSameBits(actual, expected, `${level.level} ${tokens} of ${context}`);
        }
      }
    }
  }
});

test("a row is the same whether its keys are spread over many units or taken by one", () => {
  // Eight KV heads of five sequences keep every unit of a small device busy, those of one sequence do not.
  for (const cacheType of ["f32", "f16", "f8e4m3"] as const) {
    const shape: Shape = { heads: 16, kvHeads: 8, headDim: 16, blockSize: 32, cacheType };
    const row: Sequence = { seed: 41, tokens: 1, context: 300 };
    const batch = [row, ...[270, 33, 1, 5].map((context, i) => ({ seed: 42 + i, tokens: 1, context }))];
    expectCorrect(shape, batch);
    for (const level of ATTENTION_LEVELS) {
      const [together, alone] = [batch, [row]].map((sequences) => {
        const c = build(shape, sequences, store(shape, sequences, level));
        return c.recording
          .run(level.devices[0], c.dims)
          .bytes(c.out)
          .subarray(0, 16 * 16 * 4);
      });
      expectSameBits(together!, alone!, `${level.level} ${cacheType}`);
    }
  }
});
