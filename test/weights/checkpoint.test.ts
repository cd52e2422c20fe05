import { describe, expect, test } from "bun:test";
import { mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { groupGgufFiles, openCheckpoint, requireTensor } from "../../src/weights/checkpoint.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { writeGguf } from "../support/write-gguf.ts";
import {
  encodeSafetensorsHeader,
  type SafetensorsTensor,
  writeSafetensors,
  writeShardedSafetensors,
} from "../support/write-safetensors.ts";

const root = temporaryFolder("checkpoint");
let folderNumber = 0;

function folderWith(files: Readonly<Record<string, string>>): string {
  const folder = join(root, String(folderNumber++));
  mkdirSync(folder);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

const tensor = (name: string): SafetensorsTensor => ({
  name,
  dtype: "f32",
  shape: [2],
  data: new Uint8Array(8),
});

function shardedFolder(): string {
  const folder = folderWith({});
  writeShardedSafetensors(folder, { model_type: "llama" }, [[tensor("a"), tensor("b")], [tensor("c")]]);
  return folder;
}

const indexOf = (weightMap: unknown): string => JSON.stringify({ weight_map: weightMap });

describe("folders of safetensors", () => {
  test("one file, with its configurations", () => {
    const folder = folderWith({
      "config.json": '{"model_type":"llama"}',
      "generation_config.json": '{"eos":2}',
    });
    writeSafetensors(join(folder, "model.safetensors"), [tensor("a")]);
    const checkpoint = openCheckpoint(folder);
    expect(checkpoint).toMatchObject({
      format: "safetensors",
      folder,
      config: { model_type: "llama" },
      generationConfig: { eos: 2 },
    });
    expect([...checkpoint.tensors.keys()]).toEqual(["a"]);
  });

  test("shards by their index", () => {
    const checkpoint = openCheckpoint(shardedFolder());
    expect([...checkpoint.tensors.values()].map(({ name, file }) => [name, file])).toEqual([
      ["a", 0],
      ["b", 0],
      ["c", 1],
    ]);
    expect(checkpoint.files).toHaveLength(2);
  });

  test("an index that names a missing shard, an absent tensor or a file elsewhere is refused", () => {
    const refused = (change: (folder: string) => void, ...parts: string[]): void => {
      const folder = shardedFolder();
      change(folder);
      expectMistralError(() => openCheckpoint(folder), "invalid_model_file", ...parts);
    };
    const index = (weightMap: unknown) => (folder: string) =>
      writeFileSync(join(folder, "model.safetensors.index.json"), indexOf(weightMap));
    const second = "model-00002-of-00002.safetensors";
    refused((folder) => rmSync(join(folder, second)), second, "missing");
    refused(index({ a: second }), second, '"a"', "is absent");
    refused(index({ a: "../model.safetensors" }), '"a"', "not a .safetensors file name");
    refused(index({ a: "/etc/passwd" }), '"a"', "not a .safetensors file name");
    refused(index({ a: "model.safetensors.index.json" }), "not a .safetensors file name");
    refused(index({ a: 7 }), "not a .safetensors file name");
    refused(index({}), "names no tensor");
    refused(index([]), "weight_map is not an object");
    refused(
      (folder) => {
        rmSync(join(folder, second));
        symlinkSync("model-00001-of-00002.safetensors", join(folder, second));
      },
      second,
      "the same file as",
    );
    refused((folder) => writeSafetensors(join(folder, second), [tensor("a"), tensor("c")]), '"a" is also in');
    refused(
      (folder) => writeFileSync(join(folder, "config.json"), "nonsense"),
      "config.json",
      "not valid JSON",
    );
  });

  test("a tensor that is asked for and stored in another type is named with that type", () => {
    const folder = folderWith({ "config.json": "{}" });
    const header = { t: { dtype: "F8_E4M3", shape: [4], data_offsets: [0, 4] } };
    writeFileSync(join(folder, "model.safetensors"), encodeSafetensorsHeader(header, new Uint8Array(4)));
    const checkpoint = openCheckpoint(folder);
    expectMistralError(() => requireTensor(checkpoint, "t"), "unsupported_model", '"t"', "F8_E4M3", folder);
    expectMistralError(() => requireTensor(checkpoint, "u"), "invalid_model_file", '"u" is missing', folder);
  });
});

describe("GGUF", () => {
  const gguf = (path: string): void =>
    writeGguf(path, {
      metadata: {},
      tensors: [{ name: "t", dtype: "f32", shape: [1], data: new Uint8Array(4) }],
    });

  test("a file, a folder with one file, and one that a projector lies beside", () => {
    const folder = folderWith({ "tokenizer.json": "{}", "mmproj-f16.gguf": "" });
    gguf(join(folder, "m.gguf"));
    for (const path of [folder, join(folder, "m.gguf")]) {
      const checkpoint = openCheckpoint(path);
      expect(checkpoint.files.map((file) => file.path)).toEqual([join(folder, "m.gguf")]);
      expect(requireTensor(checkpoint, "t").bytes).toBe(4);
    }
  });

  test("several are listed", () => {
    const folder = folderWith({});
    for (const name of ["a.gguf", "b.gguf"]) gguf(join(folder, name));
    expectMistralError(() => openCheckpoint(folder), "model_not_found", "2 GGUF models", "a.gguf, b.gguf");
  });

  test("shards are one candidate", () => {
    const names = ["x-00002-of-00002.gguf", "b.gguf", "x-00001-of-00002.gguf", "mmproj-b.gguf", "notes.txt"];
    expect(groupGgufFiles(names)).toEqual([
      { name: "b.gguf", files: ["b.gguf"] },
      { name: "x-00001-of-00002.gguf", files: ["x-00001-of-00002.gguf", "x-00002-of-00002.gguf"] },
    ]);
  });
});

test("what cannot be opened is answered with what was found", () => {
  const missing = (path: string, ...parts: string[]): void =>
    expectMistralError(() => openCheckpoint(path), "model_not_found", path, ...parts);
  missing(join(root, "nowhere"), "ENOENT");
  missing(folderWith({}), "the folder is empty");
  missing(folderWith({ "readme.md": "" }), "found readme.md");
  missing(folderWith({ "config.json": "{}", "pytorch_model.bin": "" }), "pickled weights are not read");
  missing(folderWith({ "model.safetensors": "" }), "config.json is missing");
  missing(
    folderWith({ "config.json": "{}", "a.safetensors": "", "b.safetensors": "" }),
    "index.json is missing",
  );
  const folder = folderWith({ "model.safetensors": "" });
  const single = join(folder, "model.safetensors");
  expectMistralError(() => openCheckpoint(single), "unsupported_model", "give the folder");
});
