/** A model from a GGML file computes what its GGUF twin does, bit for bit, and reads texts as the same tokens. */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { loadText } from "../../src/cli/serve/load-text.ts";
import { loadModel, type ModelLoadOptions } from "../../src/models/load-model.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { writeOldLlama, writeOldLlamaTwin } from "../support/old-llama.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { runStep } from "./run-sequence.ts";

const folder = temporaryFolder("ggml-model");
const TOKENS = [1, 261, 270, 3, 5, 277, 259, 100, 264];

const OPTIONS: Omit<ModelLoadOptions, "path"> = {
  threads: 2,
  sequencesMax: 2,
  tokensMax: 16,
  contextLengthMax: 64,
  kvCacheType: "f32",
  kvMemoryBytes: 16 << 20,
  blockSize: 8,
  mmap: true,
};

async function logits(path: string, changes: Partial<ModelLoadOptions> = {}): Promise<Float32Array[]> {
  const model = await loadModel({ ...OPTIONS, path, ...changes });
  try {
    return runStep(model, [{ sequence: 0, tokens: TOKENS, start: 0 }])[0]!;
  } finally {
    model.close();
  }
}

const CASES = [
  ["f32", "ggml", undefined],
  ["f16", "ggmf", 1],
  ["f16", "ggjt", 1],
  ["q5_0", "ggjt", 2],
  ["q5_1", "ggjt", 2],
  ["q4_0", "ggjt", 3],
  ["q4_1", "ggjt", 3],
  ["q5_0", "ggjt", 3],
  ["q5_1", "ggjt", 3],
  ["q8_0", "ggjt", 3],
] as const;

for (const [dtype, container, version] of CASES) {
  test(`${dtype} in ${container} ${version ?? ""}`, async () => {
    const path = join(folder, `${dtype}.bin`);
    const twin = join(folder, `${dtype}.gguf`);
    writeOldLlama(path, dtype, { container, version: version as number });
    writeOldLlamaTwin(twin, dtype);
    const expected = await logits(twin);
    expect(expected[8]!.every(Number.isFinite) && new Set(expected[8]).size > 100).toBe(true);
    expect(await logits(path)).toEqual(expected);
    expect(await logits(path, { mmap: false, repack: "off" })).toEqual(await logits(twin, { repack: "off" }));
  });
}

describe("the vocabulary in the file", () => {
  const path = join(folder, "text.bin");
  const twin = join(folder, "text.gguf");
  writeOldLlama(path, "f32");
  writeOldLlamaTwin(twin, "f32");
  const files = { chatTemplate: undefined, jinjaExplicit: undefined };
  const [old, gguf] = [loadText(openCheckpoint(path), files), loadText(openCheckpoint(twin), files)];

  for (const text of ["hello the hello", "", " a  the\nthe", "häuser ≠ 🙂", "</s><s>"]) {
    test(`reads ${JSON.stringify(text)} as the twin does, and back`, () => {
      for (const addSpecialTokens of [true, false]) {
        const tokens = old.tokenizer.encode(text, { addSpecialTokens });
        expect(tokens).toEqual(gguf.tokenizer.encode(text, { addSpecialTokens }));
        const decoded = old.tokenizer.decode(tokens, { skipSpecialTokens: false });
        expect(decoded).toBe(gguf.tokenizer.decode(tokens, { skipSpecialTokens: false }));
        if (!addSpecialTokens && !text.includes("<")) expect(decoded).toBe(text);
      }
    });
  }

  test("pieces merge by score, a text begins with its BOS, the EOS ends it", () => {
    expect(old.tokenizer.encode("the", { addSpecialTokens: true })).toEqual([1, 261]);
    expect(old.eosTokens).toEqual([2]);
  });
});
