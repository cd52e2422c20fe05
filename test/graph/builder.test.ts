import { describe, expect, test } from "bun:test";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import {
  ABSENT_TENSOR,
  HEADER_WORDS,
  OP_WORDS,
  PROGRAM_MAGIC,
  TENSOR_WORDS,
} from "../../src/graph/format.ts";
import { OPS } from "../../src/graph/ops.ts";
import { embed, matmul, rmsNorm } from "../../src/graph/record.ts";
import { pagedAttention, rope, ropeTable } from "../../src/graph/record-attention.ts";

function start() {
  const program = new ProgramBuilder();
  const tokens = program.dimension("tokens", 8);
  const seqs = program.dimension("seqs", 4);
  const weights = program.buffer("weights", 2 ** 33);
  const inputs = program.buffer("inputs", 4096);
  const ids = program.bind("ids", "i32", [tokens], { slot: inputs, byteOffset: 0 });
  const weight = (
    name: string,
    dtype: "f32" | "q4_k" | "q8_0",
    shape: [number, ...number[]],
    byteOffset = 0,
  ) => program.bind(name, dtype, shape, { slot: weights, byteOffset, readOnly: true });
  return { program, tokens, seqs, inputs, ids, weight };
}

/** The record of tensor `id` and of op `index` in the words. */
function records(words: Uint32Array) {
  const tensorsAt = HEADER_WORDS + words[2]!;
  const opsAt = tensorsAt + words[3]! * TENSOR_WORDS;
  return {
    tensor: (id: number) =>
      words.subarray(tensorsAt + id * TENSOR_WORDS, tensorsAt + (id + 1) * TENSOR_WORDS),
    op: (index: number) => words.subarray(opsAt + index * OP_WORDS, opsAt + (index + 1) * OP_WORDS),
  };
}

describe("encoding", () => {
  test("header, dimensions, tensors, views and ops land in their words", () => {
    const { program, seqs, inputs, ids, weight } = start();
    const table = weight("table", "q8_0", [100, 64], 2 ** 32 + 64);
    const starts = program.bind("starts", "i32", [{ symbol: seqs, plus: 1 }], {
      slot: inputs,
      byteOffset: 64,
    });
    const h = embed(program, { name: "h", table, ids, scale: 1.5 });
    const right = program.columns(h, 32, 16);
    const heads = program.heads(right, 2, 8);
    const { words, plan } = program.finish();

    expect([...words.subarray(0, 10)]).toEqual([
      PROGRAM_MAGIC,
      1,
      2,
      program.tensors.length,
      1,
      3,
      0,
      0,
      8,
      4,
    ]);
    const { tensor, op } = records(words);
    expect([...tensor(table.id)]).toEqual([8, 1, 64, 1, 2, 0, 64, 1, 100, 64, 1, 1, 0, 0, 0, 0]);
    expect([...tensor(starts.id)]).toEqual([26, 2, 64, 0, 1, 2, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0]);
    expect([...tensor(h.id)]).toEqual([0, 0, 0, 0, 2, 1, 64, 0, 0, 64, 1, 1, 0, 0, 0, 0]);
    expect([...tensor(heads.id)]).toEqual([0, 0, 128, 0, 3, 1, 64, 0, 0, 2, 8, 1, 0, 0, 0, 0]);
    expect([...op(0).subarray(0, 8)]).toEqual([OPS.embed.code, 3, 1, 0, h.id, table.id, ids.id, 0]);
    expect(new Float32Array(words.buffer, op(0).byteOffset + 18 * 4, 1)[0]).toBe(1.5);
    expect(plan.bytes).toBe(8 * 64 * 4);
  });

  test("absent operands are marked and negative integers keep their bits", () => {
    const { program, ids, weight } = start();
    const h = embed(program, { name: "h", table: weight("table", "f32", [4, 8]), ids, scale: 1 });
    matmul(program, { name: "y", x: h, weights: [weight("w", "f32", [3, 8])] });
    program.record(
      "gated_mul",
      { out: program.activation("z", [h.leading, 4]), gate_up: h },
      { activation: -2 },
    );
    const { op } = records(program.finish().words);
    expect([...op(1).subarray(4 + 3, 4 + 9)]).toEqual(new Array(6).fill(ABSENT_TENSOR));
    expect(op(2)[18]).toBe(0xfffffffe);
  });
});

describe("mistakes in a recording are named", () => {
  const { program, tokens, seqs, inputs, ids, weight } = start();
  const h = embed(program, { name: "h", table: weight("table", "f32", [4, 8]), ids, scale: 1 });
  const cases: [string, () => unknown, string][] = [
    [
      "weight of the wrong width",
      () => matmul(program, { name: "y", x: h, weights: [weight("w", "f32", [3, 9])] }),
      "matmul: w f32 [3, 9] must be f32 [*, 8]",
    ],
    [
      "norm of the wrong width",
      () =>
        rmsNorm(program, {
          name: "n",
          x: h,
          weight: weight("g", "f32", [7]),
          epsilon: 1e-5,
          weightOffset: 0,
        }),
      "rms_norm: g f32 [7] must be f32 [8]",
    ],
    [
      "rows of the wrong dimension",
      () => {
        const table = ropeTable(program, {
          name: "table",
          positions: program.bind("p", "i32", [seqs], { slot: inputs, byteOffset: 0 }),
          inverseFrequencies: weight("f", "f32", [4]),
          scale: 1,
        });
        rope(program, { x: program.heads(h, 1, 8), table, interleaved: false });
      },
      "rope: table f32 [seqs, 2, 4] and h:heads f32 [tokens, 1, 8] must have the same leading dimension",
    ],
    [
      "a view past the row",
      () => program.columns(h, 4, 8),
      "columns 4 .. 12 are not columns of h f32 [tokens, 8]",
    ],
    ["heads that do not divide the row", () => program.heads(h, 3, 3), "does not split into 3 heads of 3"],
    [
      "a broken block",
      () => weight("w", "q4_k", [2, 255]),
      "a row of 255 is not a whole number of q4_k blocks",
    ],
    [
      "a tensor past its buffer",
      () => program.bind("late", "f32", [tokens, 4], { slot: inputs, byteOffset: 4000 }),
      "tensor late f32 [tokens, 4] ends at byte 4128 of buffer inputs (4096 bytes)",
    ],
    [
      "a tensor whose gaps reach past its buffer",
      () => program.bind("wide", "f32", [3, 4], { slot: inputs, byteOffset: 0, leadingStride: 511 }),
      "tensor wide f32 [3, 4] ends at byte 4104 of buffer inputs (4096 bytes)",
    ],
    [
      "a missing operand",
      () => program.record("gather_rows", { out: h, x: h }),
      "gather_rows: no operand indices",
    ],
    [
      "an unknown operand",
      () => program.record("soft_cap", { x: h, y: h }, { cap: 1 }),
      "soft_cap has no operand y",
    ],
    ["a missing attribute", () => program.record("soft_cap", { x: h }), "soft_cap: no attribute cap"],
    [
      "a fractional integer",
      () => program.record("gated_mul", { out: h, gate_up: h }, { activation: 0.5 }),
      "attribute activation is 0.5, not an integer",
    ],
    [
      "a write to a weight",
      () => program.record("soft_cap", { x: weight("w", "f32", [3, 8]) }, { cap: 1 }),
      "w f32 [3, 8] is read-only",
    ],
    [
      "a tensor of another program",
      () => program.record("soft_cap", { x: start().ids }, { cap: 1 }),
      "belongs to another program",
    ],
    [
      "caches of another head width",
      () =>
        pagedAttention(program, {
          name: "a",
          q: program.heads(h, 2, 4),
          cache: {
            keys: program.bind("k", "f32", [2, 1, 4, 8], { slot: inputs, byteOffset: 0 }),
            values: program.bind("v", "f32", [2, 1, 4, 8], { slot: inputs, byteOffset: 0 }),
          },
          blockTables: program.bind("b", "i32", [seqs, 2], { slot: inputs, byteOffset: 0 }),
          sequenceStarts: program.bind("s", "i32", [{ symbol: seqs, plus: 1 }], {
            slot: inputs,
            byteOffset: 0,
          }),
          contextLengths: program.bind("c", "i32", [seqs], { slot: inputs, byteOffset: 0 }),
          scale: 1,
          slidingWindow: 0,
          softCap: 0,
        }),
      "k f32 [2, 1, 4, 8] must be [blocks, 1, block size, 4]",
    ],
  ];
  for (const [name, action, message] of cases) {
    test(name, () => {
      expect(action).toThrow(message);
    });
  }
});
