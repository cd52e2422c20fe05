/** The reference itself, against the `gguf` Python package: the same random blocks, the same digests. */

import { expect, test } from "bun:test";
import { createHash } from "node:crypto";
import { DTYPES } from "../../../src/backend/dtype.ts";
import { HALF_FIELDS, Random, WEIGHT_DTYPES } from "../random.ts";
import { dequantize } from "./dequantize.ts";
import goldens from "./dequantize-goldens.json";

const BLOCKS = 40;

test("every weight type of ours has a golden", () => {
  expect(Object.keys(goldens).sort()).toEqual([...WEIGHT_DTYPES].sort());
});

for (const dtype of WEIGHT_DTYPES) {
  test(`${dtype} means what the gguf package says`, () => {
    const { blockBytes } = DTYPES[dtype];
    const random = new Random(20);
    const bytes = Uint8Array.from({ length: BLOCKS * blockBytes }, () => random.byte());
    for (let start = 0; start < bytes.length; start += blockBytes) {
      for (const field of HALF_FIELDS[dtype]) bytes[start + field + 1]! &= 0xbf;
    }
    const values = Float32Array.from(dequantize(dtype, bytes));
    const golden = goldens[dtype as keyof typeof goldens];
    expect([...values.subarray(0, 4)]).toEqual(golden.first);
    expect(createHash("sha256").update(values).digest("hex")).toBe(golden.sha256);
  });
}
