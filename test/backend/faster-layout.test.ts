/** Which weights a level's library says it re-lays, against what a program of such weights then holds. */

import { afterAll, expect, test } from "bun:test";
import { Device } from "../../src/backend/device.ts";
import { bytesOfElements, DTYPES, type DType, FILE_DTYPES } from "../../src/backend/dtype.ts";
import { hasFasterLayout } from "../../src/backend/faster-layout.ts";
import { availableLevels } from "../../src/backend/library.ts";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import { matmul } from "../../src/graph/record.ts";
import type { Shape } from "../../src/graph/tensor.ts";
import { expectMistralError } from "../support/expect-error.ts";

const LEVELS = availableLevels();
const WEIGHT_DTYPES = FILE_DTYPES.filter((dtype) => dtype !== "i32");
const [HEIGHT, K] = [8192, 512] as const;

const opened: Device[] = [];
afterAll(() => {
  for (const device of opened) device.close();
});

test("every level re-lays what it says, and nothing else", () => {
  expect(LEVELS.length).toBeGreaterThan(0);
  for (const instructionSet of LEVELS) {
    const device = Device.open({ kind: "cpu", threads: 1, instructionSet });
    opened.push(device);
    for (const dtype of WEIGHT_DTYPES) {
      const builder = new ProgramBuilder();
      const rows = builder.dimension("rows", 1);
      const input = (name: string, type: DType, shape: Shape, bytes: number) =>
        builder.bind(name, type, shape, { slot: builder.buffer(name, bytes), byteOffset: 0, readOnly: true });
      const weightBytes = HEIGHT * bytesOfElements(dtype, K);
      const x = input("x", "f32", [rows, K], 4 * K);
      const weight = input("weight", dtype, [HEIGHT, K], weightBytes);
      matmul(builder, { name: "out", x, weights: [weight], keep: true });
      const { words, plan } = builder.finish();
      const buffers = builder.buffers.map(({ bytes }) =>
        device.createBuffer(Math.max(64, bytes, plan.bytes)),
      );
      const [inPlace, relaid] = [false, true].map((repack) => {
        const program = device.createProgram(words, buffers, { repack });
        const { workspaceBytes } = program;
        program.free();
        return workspaceBytes;
      });
      for (const buffer of buffers) buffer.free();
      const hasCopy = relaid! - inPlace! > 0.75 * weightBytes;
      expect({ instructionSet, dtype, relaid: hasFasterLayout(dtype, instructionSet) }).toEqual({
        instructionSet,
        dtype,
        relaid: hasCopy,
      });
    }
  }
});

test("all levels re-lay quantised weights, none f32", () => {
  for (const instructionSet of LEVELS) {
    const relaid = WEIGHT_DTYPES.filter((dtype) => hasFasterLayout(dtype, instructionSet));
    expect(relaid).toEqual(expect.arrayContaining(WEIGHT_DTYPES.filter((t) => DTYPES[t].blockElements > 1)));
    expect(relaid).not.toContain("f32");
  }
});

test("the best level is asked when none is named", () => {
  for (const dtype of WEIGHT_DTYPES) expect(hasFasterLayout(dtype)).toBe(hasFasterLayout(dtype, LEVELS[0]));
});

test("types that no weight has are refused", () => {
  for (const dtype of ["i32", "f8e4m3"] as const) {
    expectMistralError(
      () => hasFasterLayout(dtype),
      "backend",
      `type ${DTYPES[dtype].code} is no type of weights`,
    );
  }
});
