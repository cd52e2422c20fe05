/** Opens what the user points at - a GGUF or GGML file or a folder - as a checkpoint, or says what is there instead. */

import { existsSync, readdirSync, statSync } from "node:fs";
import { basename, join } from "node:path";
import { MistralError } from "../errors.ts";
import { isGgmlFile } from "./ggml.ts";
import { openGgml } from "./ggml-checkpoint.ts";
import { openGguf, parseSplitName, splitName } from "./gguf-split.ts";
import { quoted, systemReason } from "./malformed.ts";
import { INDEX_FILE, openSafetensorsFolder, SINGLE_FILE } from "./safetensors-folder.ts";
import type { Checkpoint, TensorEntry } from "./types.ts";

const LISTED_MAX = 20;

/**
 * Opens the checkpoint at `path`: a GGUF file (any shard of a split), a GGML file, a folder with `config.json` and safetensors, or
 * a folder with exactly one GGUF checkpoint. Reads headers only. Throws `model_not_found`, `invalid_model_file` or
 * `unsupported_model`.
 */
export function openCheckpoint(path: string): Checkpoint {
  let isFolder: boolean;
  try {
    isFolder = statSync(path).isDirectory();
  } catch (error) {
    throw new MistralError("model_not_found", `cannot open ${path}: ${systemReason(error)}`, {
      cause: error,
    });
  }
  if (isFolder) return openFolder(path);
  if (path.endsWith(".safetensors")) {
    const advice = "give the folder that holds it together with its config.json";
    throw new MistralError("unsupported_model", `${path} is a single safetensors file; ${advice}`);
  }
  return isGgmlFile(path) ? openGgml(path) : openGguf(path);
}

/**
 * The tensor of this name. Throws `invalid_model_file` when the checkpoint lacks it, `unsupported_model` when it is
 * stored in a type that is not read.
 */
export function requireTensor(checkpoint: Checkpoint, name: string): TensorEntry {
  const tensor = checkpoint.tensors.get(name);
  if (tensor !== undefined) return tensor;
  const place = checkpoint.format === "safetensors" ? checkpoint.folder : checkpoint.files[0]!.path;
  const type = checkpoint.unread?.get(name);
  if (type !== undefined) {
    const reason = `tensor ${quoted(name)} is stored as ${type}, which is not read (F32, F16 and BF16 are)`;
    throw new MistralError("unsupported_model", `${place}: ${reason}`);
  }
  throw new MistralError("invalid_model_file", `${place}: tensor ${quoted(name)} is missing`);
}

/** One GGUF checkpoint among file names: a single file, or the first shard of a split. */
export interface GgufCandidate {
  /** What to open: the file, or the first shard. */
  readonly name: string;
  /** All its files; of a split, those that its name promises. */
  readonly files: readonly string[];
}

/** Groups the GGUF files among `names` (paths within one folder tree) into checkpoints, in order of name. */
export function groupGgufFiles(names: readonly string[]): GgufCandidate[] {
  const candidates = new Map<string, GgufCandidate>();
  for (const name of [...names].sort()) {
    if (!name.endsWith(".gguf") || isProjector(name)) continue;
    const split = parseSplitName(name);
    const files =
      split === undefined || split.number > split.count
        ? [name]
        : Array.from({ length: split.count }, (_, index) => splitName(split.prefix, index + 1, split.count));
    candidates.set(files[0]!, { name: files[0]!, files });
  }
  return [...candidates.values()];
}

/** Multimodal projectors are published beside the model as GGUF files; they are not models. */
function isProjector(name: string): boolean {
  return basename(name).toLowerCase().startsWith("mmproj");
}

/** Which weights a folder holds, judged by names alone; undefined when there are none that can be opened. */
type FolderContent =
  | { readonly format: "safetensors"; readonly single: string | undefined }
  | { readonly format: "gguf"; readonly candidates: readonly GgufCandidate[] };

function folderContent(folder: string): FolderContent | undefined {
  const names = readdirSync(folder);
  if (names.includes("config.json")) {
    const safetensors = names.filter((name) => name.endsWith(".safetensors"));
    if (names.includes(SINGLE_FILE)) return { format: "safetensors", single: SINGLE_FILE };
    if (names.includes(INDEX_FILE)) return { format: "safetensors", single: undefined };
    if (safetensors.length === 1) return { format: "safetensors", single: safetensors[0]! };
  }
  const candidates = groupGgufFiles(names);
  return candidates.length > 0 ? { format: "gguf", candidates } : undefined;
}

function openFolder(folder: string): Checkpoint {
  const content = folderContent(folder);
  if (content?.format === "safetensors") return openSafetensorsFolder(folder, content.single);
  const candidates = content?.candidates ?? [];
  if (candidates.length === 1) return openGguf(join(folder, candidates[0]!.name));
  if (candidates.length > 1) {
    const names = listed(candidates.map(({ name }) => name));
    const message = `${folder} holds ${candidates.length} GGUF models; choose one with --quantized-file: ${names}`;
    throw new MistralError("model_not_found", message);
  }
  throw new MistralError(
    "model_not_found",
    `${folder} holds no model that can be opened: ${missingPart(folder)}`,
  );
}

/** Why a folder without a checkpoint has none, and what it holds instead. */
function missingPart(folder: string): string {
  const names = readdirSync(folder).sort();
  const found = names.length === 0 ? "the folder is empty" : `found ${listed(names)}`;
  const safetensors = names.filter((name) => name.endsWith(".safetensors"));
  if (safetensors.length > 0 && !existsSync(join(folder, "config.json")))
    return `config.json is missing; ${found}`;
  if (safetensors.length > 1) return `${INDEX_FILE} is missing; ${found}`;
  if (names.some((name) => /\.(bin|pt|pth)$/.test(name))) {
    return `pickled weights are not read, convert them to safetensors; a GGML file is named with --quantized-file; ${found}`;
  }
  return `needs a .gguf file, or config.json with ${SINGLE_FILE} or ${INDEX_FILE}; ${found}`;
}

function listed(names: readonly string[]): string {
  const rest = names.length - LISTED_MAX;
  return rest > 0 ? `${names.slice(0, LISTED_MAX).join(", ")} and ${rest} more` : names.join(", ");
}
