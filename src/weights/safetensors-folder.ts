/**
 * A checkpoint in the layout of the Hugging Face hub: `config.json` and `model.safetensors`, or shards with
 * `model.safetensors.index.json`.
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { isJsonObject, readJsonObject } from "./json-file.ts";
import { malformed, quoted } from "./malformed.ts";
import { readSafetensorsFile, type SafetensorsFile } from "./safetensors.ts";
import type { Checkpoint, TensorEntry } from "./types.ts";

export const SINGLE_FILE = "model.safetensors";
export const INDEX_FILE = "model.safetensors.index.json";
const CONFIG_BYTES_MAX = 16 << 20;
const INDEX_BYTES_MAX = 100_000_000;
const SHARDS_MAX = 4096;

/**
 * Opens the safetensors checkpoint in `folder`, which has a `config.json`. `single` names the weight file when
 * there is one; without it the index decides. Throws `invalid_model_file` for shards that are missing, repeated or
 * without the tensors that the index puts there.
 */
export function openSafetensorsFolder(folder: string, single: string | undefined): Checkpoint {
  const config = readJsonObject(join(folder, "config.json"), CONFIG_BYTES_MAX);
  const generationPath = join(folder, "generation_config.json");
  const generationConfig = existsSync(generationPath)
    ? readJsonObject(generationPath, CONFIG_BYTES_MAX)
    : undefined;
  const shards =
    single === undefined ? readIndexedShards(folder) : [readSafetensorsFile(join(folder, single))];
  const tensors = new Map<string, TensorEntry>();
  const unread = new Map<string, string>();
  for (const shard of shards) {
    for (const tensor of shard.tensors) {
      const twin = tensors.get(tensor.name);
      if (twin !== undefined) {
        const other = shards[twin.file]!.path;
        throw malformed(shard.path, tensor.offset, `tensor ${quoted(tensor.name)} is also in ${other}`);
      }
      tensors.set(tensor.name, tensor);
    }
    for (const [name, type] of shard.unread) unread.set(name, type);
  }
  return {
    format: "safetensors",
    folder,
    files: shards.map(({ path, bytes }) => ({ path, bytes })),
    tensors,
    unread,
    config,
    ...(generationConfig === undefined ? {} : { generationConfig }),
  };
}

/** The distinct shard names of an index, in order of name, with the tensors that each must hold. */
export function parseIndex(path: string): Map<string, string[]> {
  const { weight_map: weightMap } = readJsonObject(path, INDEX_BYTES_MAX);
  if (!isJsonObject(weightMap)) throw malformed(path, undefined, "weight_map is not an object");
  const shards = new Map<string, string[]>();
  for (const [tensor, file] of Object.entries(weightMap)) {
    if (typeof file !== "string" || !isPlainFileName(file)) {
      const found = quoted(JSON.stringify(file) ?? "nothing");
      throw malformed(
        path,
        undefined,
        `tensor ${quoted(tensor)} is mapped to ${found}, not a .safetensors file name`,
      );
    }
    const names = shards.get(file);
    if (names === undefined) shards.set(file, [tensor]);
    else names.push(tensor);
  }
  if (shards.size === 0) throw malformed(path, undefined, "weight_map names no tensor");
  if (shards.size > SHARDS_MAX)
    throw malformed(path, undefined, `${shards.size} shards are more than ${SHARDS_MAX}`);
  return new Map([...shards].sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** An index comes from a stranger: it may name files beside it, nothing else on the disk. */
function isPlainFileName(name: string): boolean {
  return /^[^/\\\0]+\.safetensors$/.test(name) && !name.startsWith("..");
}

function readIndexedShards(folder: string): SafetensorsFile[] {
  const indexPath = join(folder, INDEX_FILE);
  const files: SafetensorsFile[] = [];
  const seen = new Map<string, string>();
  for (const [name, expected] of parseIndex(indexPath)) {
    const path = join(folder, name);
    if (!existsSync(path)) throw malformed(path, undefined, `this shard, named by ${INDEX_FILE}, is missing`);
    const file = readSafetensorsFile(path, files.length);
    const twin = seen.get(file.identity);
    if (twin !== undefined) throw malformed(path, undefined, `this shard is the same file as ${twin}`);
    seen.set(file.identity, path);
    const held = new Set(file.tensors.map((tensor) => tensor.name));
    const absent = expected.find((tensor) => !held.has(tensor) && !file.unread.has(tensor));
    if (absent !== undefined) {
      throw malformed(path, undefined, `tensor ${quoted(absent)}, which ${INDEX_FILE} puts here, is absent`);
    }
    files.push(file);
  }
  return files;
}
