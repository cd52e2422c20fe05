/** Which files of a repository make up the model: by their names alone, for the hub and for its cache alike. */

import { basename } from "node:path";
import { MistralError } from "../errors.ts";
import { type GgufCandidate, groupGgufFiles } from "./checkpoint.ts";
import { INDEX_FILE, SINGLE_FILE } from "./safetensors-folder.ts";

/** What goes with safetensors weights, where the repository has it. */
const COMPANION_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "special_tokens_map.json",
  "chat_template.jinja",
  "chat_template.json",
];

/** Quantisations to take when a repository has many and the user named none, best first. */
const PREFERRED_QUANTISATIONS = ["Q4_K_M", "Q8_0"];
const LISTED_MAX = 20;

export type ModelFiles =
  | {
      readonly format: "gguf";
      /** The file to open, the first of `files`. */
      readonly open: string;
      readonly files: readonly string[];
      /** What was chosen for the user, when it was. */
      readonly note: string | undefined;
    }
  | {
      readonly format: "safetensors";
      /** Configuration, tokenizer and, when `weights` is undefined, the index that names the weights. */
      readonly companions: readonly string[];
      readonly weights: readonly string[] | undefined;
    };

/**
 * Chooses among the files `names` of the repository `place`: the GGUF files that `file` names (several separated
 * by `;`) or the one GGML file, else safetensors, else one GGUF model. Throws `model_not_found` with what is there.
 */
export function chooseModelFiles(
  names: readonly string[],
  file: string | undefined,
  place: string,
): ModelFiles {
  if (file !== undefined) return namedGguf(names, file, place);
  if (names.includes("config.json") && (names.includes(SINGLE_FILE) || names.includes(INDEX_FILE))) {
    const companions = COMPANION_FILES.filter((name) => names.includes(name));
    if (names.includes(SINGLE_FILE)) return { format: "safetensors", companions, weights: [SINGLE_FILE] };
    return { format: "safetensors", companions: [...companions, INDEX_FILE], weights: undefined };
  }
  const candidates = groupGgufFiles(names);
  if (candidates.length === 0) {
    const wanted = `neither safetensors with config.json nor a GGUF file`;
    throw new MistralError("model_not_found", `${place} has ${wanted}; it has ${listed(names)}`);
  }
  if (candidates.length === 1) return asGguf(candidates[0]!, undefined);
  for (const quantisation of PREFERRED_QUANTISATIONS) {
    const chosen = candidates.find(({ name }) => basename(name).toUpperCase().includes(quantisation));
    if (chosen !== undefined) {
      return asGguf(chosen, `${place} has ${candidates.length} GGUF models; ${chosen.name} was chosen`);
    }
  }
  throw new MistralError(
    "model_not_found",
    `${place} has ${candidates.length} GGUF models; choose one with --quantized-file: ` +
      listed(candidates.map(({ name }) => name)),
  );
}

/** The file names that a `;`-separated list holds. */
export function splitFileList(file: string): string[] {
  const names = file.split(";").map((name) => name.trim());
  return names.filter((name) => name !== "");
}

function namedGguf(names: readonly string[], file: string, place: string): ModelFiles {
  const wanted = splitFileList(file);
  const candidates = groupGgufFiles(names);
  const owners = wanted.map((name) => candidates.find(({ files }) => files.includes(name)));
  const missing = wanted.find((name, index) => owners[index] === undefined || !names.includes(name));
  // A GGML file has no ending of its own: it is taken by its name, and judged when it is opened.
  const [only] = wanted;
  if (
    wanted.length === 1 &&
    missing === only &&
    names.includes(only!) &&
    !/\.(gguf|safetensors)$/.test(only!)
  ) {
    return asGguf({ name: only!, files: wanted }, undefined);
  }
  if (missing !== undefined || wanted.length === 0) {
    const gguf = candidates.map(({ name }) => name);
    const found = gguf.length === 0 ? "it has no GGUF file" : `it has ${listed(gguf)}`;
    throw new MistralError(
      "model_not_found",
      `${place} has no GGUF file ${missing ?? `"${file}"`}; ${found}`,
    );
  }
  if (new Set(owners).size > 1) {
    throw new MistralError("model_not_found", `${wanted.join(", ")} are not the shards of one model`);
  }
  return asGguf(owners[0]!, undefined);
}

function asGguf({ name, files }: GgufCandidate, note: string | undefined): ModelFiles {
  return { format: "gguf", open: name, files, note };
}

function listed(names: readonly string[]): string {
  const rest = names.length - LISTED_MAX;
  if (names.length === 0) return "no files";
  return rest > 0 ? `${names.slice(0, LISTED_MAX).join(", ")} and ${rest} more` : names.join(", ");
}
