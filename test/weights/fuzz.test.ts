/**
 * Damaged files end in a `MistralError` or in a checkpoint whose every tensor lies inside its file. Mutations are
 * drawn from a seed; a failure prints the seed and round that repeat it (`MISTRAL_FUZZ_SEED=<seed>`).
 */

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../../src/errors.ts";
import { readGgmlFile } from "../../src/weights/ggml.ts";
import { readGgufFile } from "../../src/weights/gguf.ts";
import { readSafetensorsFile } from "../../src/weights/safetensors.ts";
import type { TensorEntry } from "../../src/weights/types.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { encodeGgml } from "../support/write-ggml.ts";
import { encodeGguf } from "../support/write-gguf.ts";
import { encodeSafetensors } from "../support/write-safetensors.ts";

const SEED = Number(process.env.MISTRAL_FUZZ_SEED ?? 20250207);
const ROUNDS = 3000;
/** No single damaged file of a kilobyte may cost more than this, on the slowest machine that runs tests. */
const ROUND_MS_MAX = 1000;
const path = join(temporaryFolder("fuzz"), "file");

const TINY_GGUF = encodeGguf({
  metadata: {
    "general.architecture": { type: "string", value: "llama" },
    "general.alignment": { type: "u32", value: 32 },
    tokens: { type: "string[]", value: ["a", "b", "<s>"] },
    scores: { type: "f32[]", value: [0, -1, -2] },
    nested: { type: "u16[][]", value: [[1], [2, 3]] },
    flag: { type: "bool", value: true },
    big: { type: "u64", value: 2n ** 60n },
  },
  tensors: [
    { name: "token_embd.weight", dtype: "q8_0", shape: [2, 32], data: new Uint8Array(68) },
    { name: "output_norm.weight", dtype: "f32", shape: [8], data: new Uint8Array(32) },
  ],
});

const TINY_GGML = encodeGgml({
  container: "ggjt",
  version: 3,
  width: 32,
  heads: 2,
  layers: 1,
  tokens: ["a", "bc", "", "def"].map((text) => ({ bytes: new TextEncoder().encode(text), score: -1 })),
  tensors: [
    { name: "tok_embeddings.weight", dtype: "q8_0", shape: [4, 32], data: new Uint8Array(136) },
    { name: "norm.weight", dtype: "f32", shape: [32], data: new Uint8Array(128) },
    { name: "layers.0.attention.wq.weight", dtype: "q4_0", shape: [32, 32], data: new Uint8Array(576) },
  ],
});

const TINY_SAFETENSORS = encodeSafetensors([
  { name: "model.norm.weight", dtype: "f32", shape: [8], data: new Uint8Array(32) },
  { name: "lm_head.weight", dtype: "bf16", shape: [2, 8], data: new Uint8Array(32) },
]);

/** mulberry32: uniform in [0, 1). */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const AWKWARD = [
  0n,
  1n,
  0x7fn,
  0xffn,
  0x7fffffffn,
  0xffffffffn,
  1n << 53n,
  (1n << 63n) - 1n,
  (1n << 64n) - 1n,
];

/** One to four random injuries: a byte, a bit, a 64-bit number, a stretch repeated or cut out, the end cut off. */
function damaged(valid: Uint8Array, random: () => number): Uint8Array {
  const below = (limit: number): number => Math.floor(random() * limit);
  let bytes = Uint8Array.from(valid);
  for (let injury = below(4); injury >= 0 && bytes.length > 16; injury--) {
    const at = below(bytes.length - 8);
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const kind = below(6);
    if (kind === 0) bytes[at] = below(256);
    else if (kind === 1) bytes[at] = bytes[at]! ^ (1 << below(8));
    else if (kind === 2) view.setBigUint64(at, AWKWARD[below(AWKWARD.length)]!, true);
    else if (kind === 3) bytes = Uint8Array.from([...bytes.subarray(0, at + 8), ...bytes.subarray(at)]);
    else if (kind === 4)
      bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + 1 + below(8))]);
    else bytes = bytes.slice(0, at);
  }
  return bytes;
}

function survives(
  valid: Uint8Array,
  read: (path: string) => { bytes: number; tensors: readonly TensorEntry[] },
): void {
  const random = randomFrom(SEED);
  let accepted = 0;
  let refused = 0;
  for (let round = 0; round < ROUNDS; round++) {
    writeFileSync(path, damaged(valid, random));
    const start = performance.now();
    try {
      const file = read(path);
      for (const { name, offset, bytes } of file.tensors) {
        if (offset + bytes > file.bytes) throw new Error(`tensor ${name} leaves the file`);
      }
      accepted++;
    } catch (error) {
      if (!(error instanceof MistralError)) throw new Error(`seed ${SEED}, round ${round}`, { cause: error });
      expect(["invalid_model_file", "unsupported_model"]).toContain(error.code);
      expect(error.message).toStartWith(path);
      refused++;
    }
    const elapsedMs = performance.now() - start;
    if (elapsedMs > ROUND_MS_MAX) throw new Error(`seed ${SEED}, round ${round} took ${elapsedMs} ms`);
  }
  // The fuzzer is worth something only while it reaches both outcomes.
  expect(accepted).toBeGreaterThan(ROUNDS / 100);
  expect(refused).toBeGreaterThan(ROUNDS / 4);
}

test("damaged GGUF files", () => survives(TINY_GGUF, (file) => readGgufFile(file)), 30_000);

test("damaged GGML files", () => survives(TINY_GGML, readGgmlFile), 30_000);

test(
  "damaged safetensors files",
  () => survives(TINY_SAFETENSORS, (file) => readSafetensorsFile(file)),
  30_000,
);
