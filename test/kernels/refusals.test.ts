/**
 * Programs and inputs that lie. A program is refused when it is created, or it runs without touching a byte
 * outside its buffers; an input that points outside its tensor is an error that names the op.
 */

import { describe, expect, test } from "bun:test";
import { MistralError } from "../../src/errors.ts";
import { embed, gatedMul, gatherRows, matmul, rmsNorm, sample, softCap } from "../../src/graph/record.ts";
import { kvWrite, pagedAttention, rope, ropeTable } from "../../src/graph/record-attention.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { bufferOf, CanaryError, EVERY_OP_LEVELS, Recording, runWords } from "./harness.ts";
import { Random, randomWeights } from "./random.ts";

const MUTANTS = 600;
const DIM = 64;
const VOCABULARY = 40;
const BLOCKS = 6;
const BLOCK_SIZE = 4;
const TOKENS = 5;

interface Inputs {
  readonly recording: Recording;
  readonly ids: Tensor;
  readonly slots: Tensor;
  readonly tables: Tensor;
  readonly starts: Tensor;
  readonly contexts: Tensor;
  readonly indices: Tensor;
}

/** One layer of a model with every op of the table in it: two sequences, of 3 and 2 new tokens. */
function everyOp(): Inputs {
  const random = new Random(1);
  const recording = new Recording();
  const { program } = recording;
  const tokens = program.dimension("tokens", 8);
  const seqs = program.dimension("seqs", 3);
  const rows = program.dimension("rows", 4);
  const weight = (name: string, height: number, width: number, dtype: "q4_0" | "q8_0" | "f16" = "q4_0") =>
    recording.input(name, dtype, [height, width], randomWeights(random, dtype, height, width));
  const vector = (name: string, width: number) => recording.f32(name, [width], random.floats(width));
  const ids = recording.i32("ids", [tokens], [1, 39, 0, 7, 7]);
  const slots = recording.i32("slots", [tokens], [4, 5, 6, 12, 13]);
  const tables = recording.i32("tables", [seqs, 2], [1, 2, 3, 4, -1, -1]);
  const starts = recording.i32("starts", [{ symbol: seqs, plus: 1 }], [0, 3, 5]);
  const contexts = recording.i32("contexts", [seqs], [3, 2]);
  const indices = recording.i32("indices", [rows], [2, 4]);

  let x = embed(program, { name: "x", table: weight("table", VOCABULARY, DIM, "q8_0"), ids, scale: 1 });
  const norm = rmsNorm(program, {
    name: "norm",
    x,
    weight: vector("norm", DIM),
    epsilon: 1e-5,
    weightOffset: 0,
  });
  const weights = [weight("wq", DIM, DIM), weight("wk", 32, DIM), weight("wv", 32, DIM, "f16")];
  const qkv = matmul(program, { name: "qkv", x: norm, weights, biases: [vector("bq", DIM)] });
  const q = program.heads(program.columns(qkv, 0, DIM), 4, 16);
  const k = program.heads(program.columns(qkv, DIM, 32), 2, 16);
  const v = program.heads(program.columns(qkv, DIM + 32, 32), 2, 16);
  const positions = recording.i32("positions", [tokens], [0, 1, 2, 0, 1]);
  const table = ropeTable(program, { name: "rope", positions, inverseFrequencies: vector("f", 8), scale: 1 });
  rope(program, { x: q, table, interleaved: false });
  rope(program, { x: k, table, interleaved: true });
  const shape = [BLOCKS, 2, BLOCK_SIZE, 16];
  const cache = {
    keys: recording.state("keys", "f16", shape as [number, ...number[]]),
    values: recording.state("values", "f16", shape as [number, ...number[]]),
  };
  kvWrite(program, { k, v, slotMapping: slots, cache });
  const attended = pagedAttention(program, {
    name: "attended",
    q,
    cache,
    blockTables: tables,
    sequenceStarts: starts,
    contextLengths: contexts,
    scale: 0.25,
    slidingWindow: 0,
    softCap: 0,
    sinks: vector("sinks", 4),
  });
  x = matmul(program, { name: "o", x: attended, weights: [weight("wo", DIM, DIM)], residual: x });
  const gateUp = matmul(program, {
    name: "gate_up",
    x,
    weights: [weight("wg", 32, DIM), weight("wu", 32, DIM)],
  });
  const hidden = gatedMul(program, { name: "hidden", gateUp, activation: "silu" });
  x = matmul(program, { name: "down", x: hidden, weights: [weight("wd", DIM, 32)], residual: x });
  const last = gatherRows(program, { name: "last", x, indices });
  const logits = matmul(program, { name: "logits", x: last, weights: [weight("head", VOCABULARY, DIM)] });
  softCap(program, { x: logits, cap: 30 });
  sample(program, {
    logits,
    parameters: recording.input("parameters", "i32", [rows, 16], new Int32Array(64)),
    adjustmentStarts: recording.i32("adjustment starts", [{ symbol: rows, plus: 1 }], [0, 0, 0, 0, 0]),
    adjustmentTokens: recording.i32("adjusted", [4], [0, 0, 0, 0]),
    adjustmentMultipliers: vector("multipliers", 4),
    adjustmentAddends: vector("addends", 4),
    tokens: recording.state("tokens", "i32", [rows]),
    logprobs: recording.state("logprobs", "f32", [rows]),
    topTokens: recording.state("top tokens", "i32", [rows, 3]),
    topLogprobs: recording.state("top logprobs", "f32", [rows, 3]),
  });
  return { recording, ids, slots, tables, starts, contexts, indices };
}

const DIMS = [TOKENS, 2, 2] as const;

test("the program itself runs, on every level", () => {
  for (const { devices } of EVERY_OP_LEVELS) {
    for (const device of devices) everyOp().recording.run(device, DIMS);
  }
});

/** Values that break things: borders of the fields, of 32 bits, and of what is there. */
function strange(random: Random, old: number): number {
  const near = [old + 1, old - 1, old * 2, old >>> 1, old ^ (1 << random.below(32))];
  return (
    random.pick([...near, 0, 1, 2, 4, 0x7fffffff, 0x80000000, 0xffffffff, random.below(2 ** 24) * 256]) >>> 0
  );
}

describe("mutated programs", () => {
  for (const { level, devices } of EVERY_OP_LEVELS) {
    test(`${level}: ${MUTANTS} mutants are refused or stay inside their buffers`, () => {
      const { recording } = everyOp();
      const { words } = recording.program.finish();
      const random = new Random(2026);
      const counts = { refused: 0, ran: 0 };
      for (let mutant = 0; mutant < MUTANTS; mutant++) {
        const changed = words.slice();
        const changes = 1 + random.below(3);
        for (let i = 0; i < changes; i++) {
          const at = random.below(changed.length);
          changed[at] = strange(random, changed[at]!);
        }
        const cut = random.byte() < 8 ? changed.subarray(0, random.below(changed.length)) : changed;
        try {
          runWords(devices[mutant % 2]!, cut, recording.memories(), DIMS);
          counts.ran++;
        } catch (error) {
          if (error instanceof CanaryError) throw new Error(`mutant ${mutant}: ${error.message}`);
          expect(error).toBeInstanceOf(MistralError);
          expect((error as MistralError).message.length).toBeGreaterThan(8);
          counts.refused++;
        }
      }
      // Some words are free (a scale, an unused field); most are not.
      expect(counts.refused).toBeGreaterThan(MUTANTS / 3);
      expect(counts.ran).toBeGreaterThan(10);
    });
  }

  test("too few words, or none", () => {
    const { recording } = everyOp();
    const { words } = recording.program.finish();
    for (const length of [1, 7, 8, 20, words.length - 1]) {
      const act = () =>
        runWords(EVERY_OP_LEVELS[0]!.devices[0], words.slice(0, length), recording.memories(), DIMS);
      expect(act).toThrow(/program has/);
    }
  });

  test("a buffer too small for its tensors", () => {
    const { recording } = everyOp();
    const { words } = recording.program.finish();
    const { devices } = EVERY_OP_LEVELS[0]!;
    for (let victim = 0; victim < recording.memories().length; victim++) {
      const buffers = recording.memories().map((memory, index) => {
        const { length } = memory.region;
        return bufferOf(devices[0], memory, index === victim ? length - 4 : length);
      });
      expect(() => devices[0].createProgram(words, buffers)).toThrow(/ends at byte \d+ of a buffer of \d+/);
      for (const buffer of buffers) buffer.free();
    }
  });
});

describe("inputs that point outside", () => {
  const huge = 0x7fffffff;
  const cases: readonly (readonly [string, Exclude<keyof Inputs, "recording">, number[], string])[] = [
    ["a token id of -1", "ids", [1, -1, 0, 7, 7], "embed"],
    ["a token id past the vocabulary", "ids", [1, 0, 0, 7, VOCABULARY], "embed"],
    ["a slot past the cache", "slots", [4, 5, 6, 12, BLOCKS * BLOCK_SIZE], "kv_write"],
    ["a slot below -1", "slots", [4, -2, 6, 12, 13], "kv_write"],
    ["a block past the cache", "tables", [1, 2, BLOCKS, 4, -1, -1], "paged_attention"],
    ["a negative block", "tables", [-1, 2, 3, 4, -1, -1], "paged_attention"],
    ["starts that fall", "starts", [0, 5, 3], "paged_attention"],
    ["starts that do not begin at 0", "starts", [1, 3, 5], "paged_attention"],
    ["starts that leave rows over", "starts", [0, 3, 4], "paged_attention"],
    ["starts past the tokens", "starts", [0, 3, huge], "paged_attention"],
    ["a context below the new tokens", "contexts", [2, 2], "paged_attention"],
    ["a context past the table", "contexts", [3, 2 * BLOCK_SIZE + 1], "paged_attention"],
    ["a negative context", "contexts", [3, -huge], "paged_attention"],
    ["a row past the tokens", "indices", [2, TOKENS], "gather_rows"],
    ["a negative row", "indices", [-1, 0], "gather_rows"],
  ];
  for (const [name, input, values, op] of cases) {
    test(name, () => {
      for (const { devices } of EVERY_OP_LEVELS) {
        for (const device of devices) {
          const program = everyOp();
          program.recording.set(program[input], Int32Array.from(values));
          expect(() => program.recording.run(device, DIMS)).toThrow(op);
        }
      }
    });
  }

  test("dimensions above their maxima, or too few of them", () => {
    const { recording } = everyOp();
    const [device] = EVERY_OP_LEVELS[0]!.devices;
    expect(() => recording.run(device, [9, 2, 2])).toThrow("dimension 0 is 9; its maximum is 8");
    expect(() => recording.run(device, [TOKENS, 2])).toThrow("2 dimensions; the program has 3");
  });

  test("a step of nothing runs and writes nothing", () => {
    const program = everyOp();
    program.recording.set(program.starts, Int32Array.from([0]));
    for (const { devices } of EVERY_OP_LEVELS) {
      for (const device of devices) program.recording.run(device, [0, 0, 0]);
    }
  });
});
