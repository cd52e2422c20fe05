import { describe, expect, test } from "bun:test";
import { copyFileSync, linkSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openGguf, parseSplitName, splitName } from "../../src/weights/gguf-split.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { type GgufField, type GgufTensor, writeGguf } from "../support/write-gguf.ts";

const root = temporaryFolder("gguf-split");
let folderNumber = 0;

interface ShardOverrides {
  readonly number?: number;
  readonly count?: number;
  readonly architecture?: string;
  readonly tensorTotal?: number;
  readonly tensorName?: string;
}

/** Writes three shards of one tensor each; `overrides` tell lies in the shard of that number. */
function threeShards(overrides: Readonly<Record<number, ShardOverrides>> = {}): string {
  const folder = join(root, String(folderNumber++));
  mkdirSync(folder);
  for (let number = 1; number <= 3; number++) {
    const lie = overrides[number] ?? {};
    const metadata: Record<string, GgufField> = {
      "general.architecture": { type: "string", value: lie.architecture ?? "llama" },
      "split.no": { type: "u16", value: lie.number ?? number - 1 },
      "split.count": { type: "u16", value: lie.count ?? 3 },
      "split.tensors.count": { type: "i32", value: lie.tensorTotal ?? 3 },
    };
    if (number === 1) metadata.first = { type: "bool", value: true };
    const data = new Uint8Array(64 * number).fill(number);
    const name = lie.tensorName ?? `t${number}`;
    const tensor: GgufTensor = { name, dtype: "f32", shape: [16 * number], data };
    writeGguf(join(folder, splitName("model", number, 3)), { metadata, tensors: [tensor] });
  }
  return folder;
}

const shard = (folder: string, number: number): string => join(folder, splitName("model", number, 3));

test("names of shards are read and written", () => {
  expect(splitName("a-b", 2, 12)).toBe("a-b-00002-of-00012.gguf");
  expect(parseSplitName("a-b-00002-of-00012.gguf")).toEqual({ prefix: "a-b", number: 2, count: 12 });
  expect(parseSplitName("a-2-of-12.gguf")).toBeUndefined();
});

test.each([1, 2, 3])("shard %d stands for the whole, metadata from the first", (number) => {
  const folder = threeShards();
  const checkpoint = openGguf(shard(folder, number));
  expect(checkpoint.files.map(({ path }) => path)).toEqual([1, 2, 3].map((each) => shard(folder, each)));
  expect([...checkpoint.tensors.values()].map(({ name, file, bytes }) => [name, file, bytes])).toEqual([
    ["t1", 0, 64],
    ["t2", 1, 128],
    ["t3", 2, 192],
  ]);
  expect(checkpoint.format === "gguf" && checkpoint.metadata.get("first")).toBe(true);
});

describe("refused", () => {
  const refused = (path: string, ...parts: string[]): void =>
    expectMistralError(() => openGguf(path), "invalid_model_file", ...parts);

  test("a missing shard", () => {
    const folder = threeShards();
    rmSync(shard(folder, 3));
    refused(shard(folder, 1), "model-00003-of-00003.gguf", "shard 3 of 3 is missing");
  });

  test("a cycle: shards that are the first one again, by link or by copy", () => {
    for (const again of [linkSync, symlinkSync]) {
      const folder = threeShards();
      rmSync(shard(folder, 2));
      again(shard(folder, 1), shard(folder, 2));
      refused(shard(folder, 3), "model-00002-of-00003.gguf", "the same file as", "model-00001-of-00003.gguf");
    }
    const folder = threeShards();
    copyFileSync(shard(folder, 1), shard(folder, 2));
    refused(shard(folder, 1), "model-00002-of-00003.gguf", "split.no is 0");
  });

  test("a symbolic link to itself", () => {
    const folder = threeShards();
    rmSync(shard(folder, 2));
    symlinkSync(shard(folder, 2), shard(folder, 2));
    refused(shard(folder, 1), "model-00002-of-00003.gguf", "missing");
  });

  test("a shard of another split or another architecture", () => {
    refused(shard(threeShards({ 2: { count: 4 } }), 1), "split.count is 4", "its name says 3");
    refused(shard(threeShards({ 3: { architecture: "qwen3" } }), 1), '"qwen3"', '"llama"');
  });

  test("a tensor in two shards, and a wrong number of tensors", () => {
    refused(
      shard(threeShards({ 2: { tensorName: "t1" } }), 1),
      '"t1" is also in',
      "model-00001-of-00003.gguf",
    );
    refused(shard(threeShards({ 1: { tensorTotal: 5 } }), 1), "hold 3 tensors", "says 5");
  });

  test("a shard under a name that does not tell its place", () => {
    const folder = threeShards();
    const renamed = join(folder, "renamed.gguf");
    copyFileSync(shard(folder, 2), renamed);
    refused(renamed, "must be named like NAME-00002-of-00003.gguf");
  });

  test("a shard that is not GGUF", () => {
    const folder = threeShards();
    writeFileSync(shard(folder, 2), "<!DOCTYPE html>");
    refused(shard(folder, 1), "model-00002-of-00003.gguf, byte 0", "not a GGUF file");
  });
});
