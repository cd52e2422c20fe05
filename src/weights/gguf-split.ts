/**
 * A GGUF checkpoint of one file or of many (`name-00001-of-00003.gguf`, with `split.no`, `split.count` and
 * `split.tensors.count` in each; llama.cpp, `gguf-split`). Any shard stands for the whole.
 */

import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { type GgufFile, readGgufFile } from "./gguf.ts";
import { malformed, quoted } from "./malformed.ts";
import type { Checkpoint, TensorEntry } from "./types.ts";

const SPLIT_NAME = /^(.*)-(\d{5})-of-(\d{5})\.gguf$/;

export interface SplitName {
  readonly prefix: string;
  /** From 1. */
  readonly number: number;
  readonly count: number;
}

/** What a file name says about a split, or undefined when it is not the name of a shard. */
export function parseSplitName(name: string): SplitName | undefined {
  const match = SPLIT_NAME.exec(name);
  return match === null
    ? undefined
    : { prefix: match[1]!, number: Number(match[2]), count: Number(match[3]) };
}

/** The file name of shard `number`, from 1, of `count`. */
export function splitName(prefix: string, number: number, count: number): string {
  return `${prefix}-${String(number).padStart(5, "0")}-of-${String(count).padStart(5, "0")}.gguf`;
}

/**
 * Opens the checkpoint that the GGUF file at `path`, alone or any shard of a split, belongs to. The metadata is
 * that of the first shard. A shard that is missing, repeated or of another model is an `invalid_model_file`.
 */
export function openGguf(path: string): Checkpoint {
  const opened = readGgufFile(path);
  const count = splitNumber(opened, "split.count") ?? 1;
  const shards = count > 1 ? readShards(opened, count) : [opened];
  const tensors = new Map<string, TensorEntry>();
  for (const shard of shards) {
    for (const tensor of shard.tensors) {
      const twin = tensors.get(tensor.name);
      if (twin !== undefined) {
        const other = shards[twin.file]!.path;
        throw malformed(shard.path, tensor.offset, `tensor ${quoted(tensor.name)} is also in ${other}`);
      }
      tensors.set(tensor.name, tensor);
    }
  }
  const expected = splitNumber(shards[0]!, "split.tensors.count");
  if (count > 1 && expected !== undefined && expected !== tensors.size) {
    const found = `the ${count} shards hold ${tensors.size} tensors`;
    throw malformed(shards[0]!.path, undefined, `${found}, but split.tensors.count says ${expected}`);
  }
  return {
    format: "gguf",
    files: shards.map(({ path, bytes }) => ({ path, bytes })),
    tensors,
    metadata: shards[0]!.metadata,
  };
}

function readShards(opened: GgufFile, count: number): GgufFile[] {
  const name = parseSplitName(basename(opened.path));
  if (name === undefined || name.count !== count) {
    const expected = splitName("NAME", (splitNumber(opened, "split.no") ?? 0) + 1, count);
    throw malformed(
      opened.path,
      undefined,
      `one of ${count} shards (split.count) must be named like ${expected}`,
    );
  }
  const architecture = opened.metadata.get("general.architecture");
  const seen = new Map<string, string>();
  const shards: GgufFile[] = [];
  for (let index = 0; index < count; index++) {
    const path = join(dirname(opened.path), splitName(name.prefix, index + 1, count));
    if (!existsSync(path)) throw malformed(path, undefined, `shard ${index + 1} of ${count} is missing`);
    const shard = readGgufFile(path, index);
    const twin = seen.get(shard.identity);
    if (twin !== undefined) throw malformed(path, undefined, `this shard is the same file as ${twin}`);
    seen.set(shard.identity, path);
    expectSplit(shard, "split.no", index);
    expectSplit(shard, "split.count", count);
    const own = shard.metadata.get("general.architecture");
    if (own !== undefined && architecture !== undefined && own !== architecture) {
      const found = `architecture ${quoted(String(own))}`;
      throw malformed(path, undefined, `${found}, but ${opened.path} has ${quoted(String(architecture))}`);
    }
    shards.push(shard);
  }
  return shards;
}

function expectSplit(shard: GgufFile, key: string, expected: number): void {
  const found = splitNumber(shard, key);
  if (found !== expected) {
    throw malformed(shard.path, undefined, `${key} is ${found ?? "missing"}, but its name says ${expected}`);
  }
}

function splitNumber(file: GgufFile, key: string): number | undefined {
  const value = file.metadata.get(key);
  if (value === undefined) return undefined;
  if (typeof value === "number" && Number.isInteger(value) && value >= 0) return value;
  throw malformed(file.path, undefined, `${key} is not a number of shards or tensors`);
}
