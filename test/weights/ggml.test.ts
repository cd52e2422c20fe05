/** GGML files, the format before GGUF: what is read of each container, and what is refused with which words. */

import { describe, expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { readGgmlFile } from "../../src/weights/ggml.ts";
import { openGgml } from "../../src/weights/ggml-checkpoint.ts";
import { resolveModel } from "../../src/weights/resolve.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { FakeHub } from "../support/fake-hub.ts";
import { oldLlama, writeOldLlama } from "../support/old-llama.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { encodeGgml } from "../support/write-ggml.ts";

const folder = temporaryFolder("ggml");
const path = join(folder, "old.bin");

const CONTAINERS = [
  { container: "ggml", version: undefined },
  { container: "ggmf", version: 1 },
  { container: "ggjt", version: 1 },
  { container: "ggjt", version: 2 },
  { container: "ggjt", version: 3 },
] as const;

function changes({ container, version }: (typeof CONTAINERS)[number]) {
  return { container, ...(version === undefined ? { version: undefined as never } : { version }) };
}

for (const kind of CONTAINERS) {
  test(`${kind.container} ${kind.version ?? ""} is read: numbers, vocabulary, tensors where they lie`, async () => {
    const content = oldLlama("f16", changes(kind));
    writeFileSync(path, encodeGgml(content));
    const file = readGgmlFile(path);
    expect(file).toMatchObject({ container: kind.container, version: kind.version ?? 0 });
    expect(file.hyperparameters).toEqual({
      vocabularySize: content.tokens.length,
      width: 64,
      heads: 4,
      layers: 3,
      rotatedDims: 16,
    });
    expect(file.tokens).toEqual(content.tokens.map(({ bytes }) => bytes));
    const scores = kind.container === "ggml" ? undefined : content.tokens.map(({ score }) => score);
    expect(file.scores).toEqual(scores as number[]);
    expect(file.tensors.map(({ name }) => name)).toEqual(content.tensors.map(({ name }) => name));
    const stored = Bun.file(path);
    for (const [index, { offset, bytes, shape, dtype }] of file.tensors.entries()) {
      const written = content.tensors[index]!;
      expect({ shape, dtype: dtype as string }).toEqual({
        shape: written.shape as number[],
        dtype: written.dtype as string,
      });
      expect(await stored.slice(offset, offset + bytes).bytes()).toEqual(new Uint8Array(written.data));
      if (kind.container === "ggjt") expect(offset % 32).toBe(0);
    }
  });
}

test("as a checkpoint it has GGUF's keys and names, and says that it is none", () => {
  writeOldLlama(path, "q4_0");
  const checkpoint = openCheckpoint(path);
  if (checkpoint.format !== "gguf") throw new Error(checkpoint.format);
  expect(checkpoint.container).toBe("ggml");
  const of = (key: string) => checkpoint.metadata.get(key);
  expect(of("general.architecture")).toBe("llama");
  expect(of("llama.attention.head_count")).toBe(4);
  expect(of("llama.attention.head_count_kv")).toBe(2);
  expect(of("llama.feed_forward_length")).toBe(96);
  expect(of("llama.context_length")).toBe(4096);
  expect(of("llama.attention.layer_norm_rms_epsilon")).toBe(1e-5);
  expect(of("llama.rope.dimension_count")).toBe(16);
  const tokens = of("tokenizer.ggml.tokens") as string[];
  expect(tokens.slice(0, 4)).toEqual(["<unk>", "<s>", "</s>", "<0x00>"]);
  expect(tokens[258]).toBe("<0xFF>");
  expect(tokens[261]).toBe("▁the");
  expect(checkpoint.tensors.get("blk.2.ffn_down.weight")?.name).toBe("layers.2.feed_forward.w2.weight");
});

test("without scores the likelier piece is the earlier one", () => {
  writeOldLlama(path, "f32", { container: "ggml", version: undefined as never });
  const checkpoint = openGgml(path);
  if (checkpoint.format !== "gguf") throw new Error(checkpoint.format);
  const scores = checkpoint.metadata.get("tokenizer.ggml.scores") as number[];
  expect(scores[279]! < scores[278]! && scores[278]! < scores[259]!).toBe(true);
});

describe("blocks laid out otherwise than today are refused by version", () => {
  const refused = [
    ["q4_0", "ggjt", 1, 3],
    ["q4_0", "ggjt", 2, 3],
    ["q4_1", "ggjt", 2, 3],
    ["q8_0", "ggjt", 2, 3],
    ["q5_0", "ggjt", 1, 2],
    ["q5_1", "ggjt", 1, 2],
    ["q4_0", "ggmf", 1, 3],
    ["q4_0", "ggml", undefined, 3],
  ] as const;
  for (const [dtype, container, version, since] of refused) {
    test(`${dtype} in ${container} ${version ?? ""}`, () => {
      writeOldLlama(path, dtype, { container, version: version as number });
      const file =
        version === undefined
          ? `${container} file, which has no version`
          : `${container} file of version ${version}`;
      const words = [`${path}: a ${file}`, `since ggjt version ${since}`, "Use a GGUF file"];
      expectMistralError(() => openCheckpoint(path), "unsupported_model", ...words);
    });
  }

  for (const dtype of ["q5_0", "q5_1"] as const) {
    test(`${dtype} in ggjt 2 is as today`, () => {
      writeOldLlama(path, dtype, { version: 2 });
      expect(openCheckpoint(path).tensors.get("blk.0.attn_q.weight")?.dtype).toBe(dtype);
    });
  }
});

describe("refused with the reason", () => {
  test("a version that is not known", () => {
    writeOldLlama(path, "f32", { version: 4 });
    expectMistralError(() => openCheckpoint(path), "unsupported_model", "version 4", "versions 1, 2, 3");
  });

  test("another family in the same container", () => {
    writeOldLlama(path, "f32", { heads: 5 });
    expectMistralError(() => openCheckpoint(path), "invalid_model_file", "5 heads", "Llama family");
  });

  test("one part of several", () => {
    const content = oldLlama("f32");
    const tensors = content.tensors.map((tensor) =>
      tensor.name === "tok_embeddings.weight"
        ? { ...tensor, shape: [tensor.shape[0]!, 32], data: tensor.data.slice(0, tensor.data.length / 2) }
        : tensor,
    );
    writeFileSync(path, encodeGgml({ ...content, tensors }));
    expectMistralError(() => openCheckpoint(path), "unsupported_model", "one part of a model in several");
  });

  test("a type that was removed, a file cut short, a name twice", () => {
    const content = oldLlama("f32");
    const [first, ...others] = content.tensors;
    writeFileSync(path, encodeGgml({ ...content, tensors: [{ ...first!, dtype: 4 }, ...others] }));
    expectMistralError(() => openCheckpoint(path), "unsupported_model", "Q4_2 (removed from GGML)");
    writeFileSync(path, encodeGgml(content).slice(0, -1));
    expectMistralError(() => openCheckpoint(path), "invalid_model_file", "the file ends at");
    writeFileSync(path, encodeGgml({ ...content, tensors: [first!, first!] }));
    expectMistralError(() => openCheckpoint(path), "invalid_model_file", "occurs twice");
    writeFileSync(path, encodeGgml({ ...content, tensors: [first!] }));
    expectMistralError(() => openCheckpoint(path), "invalid_model_file", "blk.0.attn_k.weight");
  });
});

test("it is found by its path, and by its name in a folder; a folder alone asks for the name", async () => {
  writeOldLlama(path, "f32");
  const request = { onProgress: () => {}, environment: {} };
  const alone = await resolveModel({ ...request, model: undefined, file: path });
  expect(alone).toMatchObject({ id: "old", checkpointPath: path });
  const named = await resolveModel({ ...request, model: folder, file: "old.bin" });
  expect(named.checkpointPath).toBe(path);
  expectMistralError(
    () => openCheckpoint(folder),
    "model_not_found",
    "a GGML file is named with --quantized-file",
  );
  expect(resolveModel({ ...request, model: folder, file: "other.bin" })).rejects.toThrow(
    "no GGUF file other.bin",
  );
});

test("it is fetched from the hub by its name, and found in the cache after that", async () => {
  writeOldLlama(path, "f16");
  const hub = new FakeHub();
  const bytes = new Uint8Array(readFileSync(path));
  hub.repositories.set("owner/old", {
    commit: "0123456789abcdef0123456789abcdef01234567",
    files: { "old.ggmlv3.f16.bin": bytes, "README.md": new Uint8Array(3) },
  });
  const environment = { HF_ENDPOINT: hub.endpoint, HF_HUB_CACHE: join(folder, "cache"), HF_HOME: folder };
  const request = { model: "owner/old", file: "old.ggmlv3.f16.bin", onProgress: () => {}, environment };
  const fetched = await resolveModel(request);
  expect(fetched.source).toBe("hub");
  expect([...openCheckpoint(fetched.checkpointPath).tensors]).toEqual([...openCheckpoint(path).tensors]);
  expect((await resolveModel(request)).source).toBe("hub-cache");
});
