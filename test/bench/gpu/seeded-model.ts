/**
 * Writes a GGUF file of a shape with weights from a seed. Every matrix is drawn from one long piece of noise, from a
 * place of its own, so that a file of many gigabytes is written as fast as the disk takes it.
 */

import { closeSync, openSync, writeSync } from "node:fs";
import { bytesOfElements, DTYPES } from "../../../src/backend/dtype.ts";
import { encodeGgufHeader, type GgufField } from "../../support/write-gguf.ts";
import { matricesOf, type Shape, type WeightType } from "./shapes.ts";

/** A multiple of every block's bytes times 4096. */
const NOISE_BLOCKS_BYTES = 16 << 20;
/** Standard deviation of a weight of the layers of such models. */
const SPREAD = 0.02;

/** Bits that pass for random (xorshift32). */
function randomWords(bytes: number, seed: number): Uint32Array {
  const words = new Uint32Array(Math.ceil(bytes / 4));
  let x = seed | 1;
  for (let index = 0; index < words.length; index++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[index] = x;
  }
  return words;
}

/** Noise as whole blocks of a type, whose values lie around zero with `SPREAD`. */
function noiseOf(type: WeightType, seed: number): Uint8Array {
  const { blockBytes } = DTYPES[type];
  const blocks = Math.floor(NOISE_BLOCKS_BYTES / blockBytes);
  const noise = new Uint8Array(randomWords(blocks * blockBytes, seed).buffer, 0, blocks * blockBytes);
  const view = new DataView(noise.buffer);
  for (let block = 0; block < blocks; block++) {
    const at = block * blockBytes;
    switch (type) {
      case "bf16": {
        // A sign, seven bits of fraction and an exponent between 2^-8 and 2^-5.
        const bits = view.getUint16(at, true);
        view.setUint16(at, (bits & 0x807f) | ((119 + ((bits >> 8) & 3)) << 7), true);
        break;
      }
      case "q8_0":
        view.setFloat16(at, SPREAD / 74, true);
        break;
      case "q4_k":
        // Levels 0 to 15 times scales 0 to 63, less minima of half the range.
        view.setFloat16(at, SPREAD / 150, true);
        view.setFloat16(at + 2, SPREAD / 20, true);
        break;
    }
  }
  return noise;
}

/** Writes the file; answers its bytes. */
export function writeSeededModel(path: string, shape: Shape, type: WeightType, seed: number): number {
  const { width, layers } = shape;
  const vector = (name: string) => ({ name, dtype: "f32" as const, shape: [width], length: width * 4 });
  const tensors = [{ name: "token_embd.weight", shape: [shape.vocabulary, width] }, ...matricesOf(shape)].map(
    (matrix) => {
      const elements = matrix.shape[0]! * matrix.shape[1]!;
      return { ...matrix, dtype: type, length: bytesOfElements(type, elements) };
    },
  );
  const norms = Array.from({ length: layers }, (_, index) => [
    vector(`blk.${index}.attn_norm.weight`),
    vector(`blk.${index}.ffn_norm.weight`),
  ]).flat();
  const all = [...tensors, ...norms, vector("output_norm.weight")];
  const { header, offsets, dataBytes } = encodeGgufHeader({
    metadata: metadataOf(shape),
    tensors: all.map(({ name, dtype, shape, length }) => ({ name, dtype, shape, data: { length } })),
  });
  const noise = noiseOf(type, seed);
  const { blockBytes } = DTYPES[type];
  const ones = new Uint8Array(new Float32Array(width).fill(1).buffer);
  const file = openSync(path, "w");
  try {
    writeSync(file, header, 0, header.length, 0);
    for (const [index, { dtype, length }] of all.entries()) {
      const start = header.length + offsets[index]!;
      if (dtype === "f32") {
        writeSync(file, ones, 0, length, start);
        continue;
      }
      // A place of its own in the noise, at the start of a block.
      let from = ((index * 7919) % (noise.length / blockBytes)) * blockBytes;
      for (let done = 0; done < length; ) {
        const count = Math.min(length - done, noise.length - from);
        writeSync(file, noise, from, count, start + done);
        done += count;
        from = 0;
      }
    }
  } finally {
    closeSync(file);
  }
  return header.length + dataBytes;
}

function metadataOf(shape: Shape): Record<string, GgufField> {
  const u32 = (value: number): GgufField => ({ type: "u32", value });
  return {
    "general.architecture": { type: "string", value: "llama" },
    "llama.block_count": u32(shape.layers),
    "llama.embedding_length": u32(shape.width),
    "llama.feed_forward_length": u32(shape.feedForward),
    "llama.context_length": u32(shape.contextLength),
    "llama.attention.head_count": u32(shape.heads),
    "llama.attention.head_count_kv": u32(shape.keyValueHeads),
    "llama.attention.key_length": u32(shape.headDim),
    "llama.attention.value_length": u32(shape.headDim),
    "llama.attention.layer_norm_rms_epsilon": { type: "f32", value: 1e-5 },
    "llama.rope.freq_base": { type: "f32", value: shape.ropeTheta },
    "tokenizer.ggml.eos_token_id": u32(2),
  };
}
