/** A model in one of the types of looked-up integers computes what its twin of the same weights in f32 does. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { DTYPES } from "../../src/backend/dtype.ts";
import { loadModel, type ModelLoadOptions } from "../../src/models/load-model.ts";
import { dequantize } from "../kernels/reference/dequantize.ts";
import { ggufMetadata, ggufTensors, readGolden } from "../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { type GgufTensor, writeGguf } from "../support/write-gguf.ts";
import { runStep } from "./run-sequence.ts";

/** Of a row's largest logit: x in 15 bits, three layers deep. As much as Q8_0 differs from its own twin. */
const TOLERANCE = 1e-3;
/** The same with x in 8 bits. */
const TOLERANCE_FAST = 0.1;
const BLOCK = 32;
type Looked = "iq4_nl" | "mxfp4";

const OPTIONS: Omit<ModelLoadOptions, "path"> = {
  threads: 2,
  sequencesMax: 2,
  tokensMax: 64,
  contextLengthMax: 64,
  kvCacheType: "f32",
  kvMemoryBytes: 16 << 20,
  blockSize: 8,
  mmap: true,
};

/** A block without nibbles, its scale fitted to the largest magnitude. */
function emptyBlock(dtype: Looked, largest: number): Uint8Array {
  const block = new Uint8Array(DTYPES[dtype].blockBytes);
  if (dtype === "iq4_nl") new DataView(block.buffer).setFloat16(0, largest / 113, true);
  else block[0] = Math.floor(Math.log2(largest)) + 125;
  return block;
}

/** The block whose values are nearest. */
function encodeBlock(dtype: Looked, values: Float32Array): Uint8Array {
  const block = emptyBlock(dtype, Math.max(...values.map(Math.abs)));
  const first = block.length - BLOCK / 2;
  const every = block.slice();
  for (let nibble = 0; nibble < 16; nibble++) every[first + nibble] = nibble;
  const choices = [...dequantize(dtype, every).subarray(0, 16)];
  values.forEach((value, i) => {
    const distances = choices.map((choice) => Math.abs(choice - value));
    const nibble = distances.indexOf(Math.min(...distances));
    block[first + (i % 16)]! |= nibble << (i < 16 ? 0 : 4);
  });
  return block;
}

function encode(dtype: Looked, tensor: GgufTensor): GgufTensor {
  if (tensor.shape.length === 1) return tensor;
  const { buffer, byteOffset, byteLength } = tensor.data;
  const values = new Float32Array(buffer, byteOffset, byteLength / 4);
  const { blockBytes } = DTYPES[dtype];
  const data = new Uint8Array((values.length / BLOCK) * blockBytes);
  for (let block = 0; block < values.length / BLOCK; block++) {
    data.set(encodeBlock(dtype, values.subarray(block * BLOCK, (block + 1) * BLOCK)), block * blockBytes);
  }
  return { ...tensor, dtype, data };
}

function decode(dtype: Looked, tensor: GgufTensor): GgufTensor {
  if (tensor.dtype !== dtype) return tensor;
  const values = Float32Array.from(dequantize(dtype, tensor.data));
  return { ...tensor, dtype: "f32", data: new Uint8Array(values.buffer) };
}

const folder = temporaryFolder("weight-types");
const golden = readGolden("llama2");
const plain = ggufTensors(golden);

async function logits(
  name: string,
  tensors: readonly GgufTensor[],
  options: Pick<ModelLoadOptions, "repack" | "activations"> = { repack: "off" },
): Promise<Float32Array[]> {
  const path = join(folder, `${name}.gguf`);
  const rope = golden.config.rope_parameters as Readonly<Record<string, number | string>>;
  writeGguf(path, { metadata: ggufMetadata(golden, rope), tensors });
  const model = await loadModel({ ...OPTIONS, ...options, path });
  try {
    return runStep(model, [{ sequence: 0, tokens: golden.tokens, start: 0 }])[0]!;
  } finally {
    model.close();
  }
}

/** The largest difference in a row over the row's largest logit, over all rows. */
function difference(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  return Math.max(
    ...expected.map((row, index) => {
      const worst = Math.max(...row.map((value, i) => Math.abs(value - actual[index]![i]!)));
      return worst / Math.max(...row.map(Math.abs));
    }),
  );
}

for (const dtype of ["iq4_nl", "mxfp4"] as const) {
  test(`${dtype}: the logits of its weights in f32, used where they lie and re-laid`, async () => {
    const encoded = plain.map((tensor) => encode(dtype, tensor));
    const twin = await logits(
      `${dtype}-twin`,
      encoded.map((tensor) => decode(dtype, tensor)),
    );
    for (const repack of ["on", "off"] as const) {
      const actual = await logits(dtype, encoded, { repack });
      expect(actual).toHaveLength(golden.tokens.length);
      expect(difference(actual, twin)).toBeLessThan(TOLERANCE);
      const fast = difference(await logits(dtype, encoded, { repack, activations: "fast" }), twin);
      expect(fast).toBeGreaterThan(TOLERANCE);
      expect(fast).toBeLessThan(TOLERANCE_FAST);
    }
    // Other weights than before they were encoded are told apart.
    expect(difference(await logits("original", plain), twin)).toBeGreaterThan(0.01);
  });
}
