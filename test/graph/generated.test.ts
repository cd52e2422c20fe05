import { expect, test } from "bun:test";
import { DTYPES } from "../../src/backend/dtype.ts";
import { GENERATED_ZIG_PATH, generateZig } from "../../src/graph/generate-zig.ts";
import { ATTRIBUTE_COUNT_MAX, OPERAND_COUNT_MAX, OPS, type OpSpec } from "../../src/graph/ops.ts";

test("the kernels' copy of the op table is current", async () => {
  // If this fails: bun src/graph/generate-zig.ts --write
  expect(await Bun.file(GENERATED_ZIG_PATH).text()).toBe(generateZig());
});

test("op codes and element type codes are unique, operands and attributes fit the record", () => {
  const ops = Object.values(OPS) as OpSpec[];
  expect(new Set(ops.map((op) => op.code)).size).toBe(ops.length);
  expect(new Set(Object.values(DTYPES).map((dtype) => dtype.code)).size).toBe(Object.keys(DTYPES).length);
  for (const op of ops) {
    expect(op.operands.length).toBeLessThanOrEqual(OPERAND_COUNT_MAX);
    expect(op.attributes.length).toBeLessThanOrEqual(ATTRIBUTE_COUNT_MAX);
  }
});
