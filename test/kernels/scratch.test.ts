/** The memory that a program reserves for each thread: what its weights and its number of rows need, no more. */

import { expect, test } from "bun:test";
import type { Device } from "../../src/backend/device.ts";
import type { DType } from "../../src/backend/dtype.ts";
import { bytesOfElements } from "../../src/backend/dtype.ts";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import { matmul } from "../../src/graph/record.ts";
import type { Shape } from "../../src/graph/tensor.ts";
import { CPU_LEVELS, hasBf16Tiles, type LevelDevices } from "./harness.ts";

const [HEIGHT, K] = [64, 2048] as const;
/** A cache line, which every thread has. */
const LEAST = 64;

interface Wanted {
  readonly dtype: DType;
  readonly tokens: number;
  readonly repack?: boolean;
}

/** Of one thread more. */
function bytesPerThread({ devices }: LevelDevices, wanted: Wanted): number {
  return workspaceBytes(devices[1], wanted) - workspaceBytes(devices[0], wanted);
}

function workspaceBytes(device: Device, { dtype, tokens, repack = false }: Wanted): number {
  const builder = new ProgramBuilder();
  const rows = builder.dimension("rows", tokens);
  const input = (name: string, type: DType, shape: Shape, bytes: number) =>
    builder.bind(name, type, shape, { slot: builder.buffer(name, bytes), byteOffset: 0, readOnly: true });
  const x = input("x", "f32", [rows, K], 4 * tokens * K);
  const weight = input("weight", dtype, [HEIGHT, K], HEIGHT * bytesOfElements(dtype, K));
  matmul(builder, { name: "out", x, weights: [weight], keep: true });
  const { words, plan } = builder.finish();
  const buffers = builder.buffers.map(({ bytes }) => device.createBuffer(Math.max(64, bytes, plan.bytes)));
  const program = device.createProgram(words, buffers, { repack });
  const bytes = program.workspaceBytes;
  program.free();
  for (const buffer of buffers) buffer.free();
  return bytes;
}

test("weights that are multiplied where they lie in f32 need none", () => {
  expect(CPU_LEVELS.length).toBeGreaterThan(0);
  for (const level of CPU_LEVELS) {
    for (const dtype of ["f32", "f16", "bf16"] as const) {
      for (const tokens of [1, 512]) expect(bytesPerThread(level, { dtype, tokens })).toBe(LEAST);
    }
    expect(bytesPerThread(level, { dtype: "f32", tokens: 512, repack: true })).toBe(LEAST);
  }
});

test("quantised weights are unpacked for many rows alone", () => {
  for (const level of CPU_LEVELS) {
    expect(bytesPerThread(level, { dtype: "q8_0", tokens: 1 })).toBe(LEAST);
    expect(bytesPerThread(level, { dtype: "q8_0", tokens: 512 })).toBeGreaterThan(16 * K);
    expect(bytesPerThread(level, { dtype: "q8_0", tokens: 1, repack: true })).toBe(LEAST);
  }
});

test("sums and planes of the tile unit grow with the number of rows", () => {
  for (const level of CPU_LEVELS) {
    const bytes = (dtype: DType, tokens: number) => bytesPerThread(level, { dtype, tokens, repack: true });
    if (!hasBf16Tiles(level.level)) {
      for (const dtype of ["f16", "bf16"] as const) expect(bytes(dtype, 512)).toBe(LEAST);
      continue;
    }
    // A tile of sums for each panel of 256 rows.
    expect(bytes("bf16", 1)).toBe(16 * 1024);
    expect(bytes("bf16", 512)).toBe(32 * 16 * 1024);
    expect(bytes("bf16", 5000)).toBe(bytes("bf16", 512));
    // Beside them the two planes of four steps, or of a chunk of 1024 elements of all rows.
    expect(bytes("f16", 16) - bytes("bf16", 16)).toBe(4 * 2 * 1024);
    expect(bytes("f16", 17) - bytes("bf16", 17)).toBe(256 * 1024 * 2 * 2);
  }
});
