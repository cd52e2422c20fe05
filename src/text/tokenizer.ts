/** Where tokenizers come from: a folder of Hugging Face files, or the metadata of a GGUF file. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../errors.ts";
import type { TokenizerNode } from "./pre-tokenizer.ts";
import { TextTokenizer } from "./text-tokenizer.ts";
import { partsFromGguf } from "./tokenizer-gguf.ts";
import { partsFromJson } from "./tokenizer-json.ts";
import type { Tokenizer } from "./types.ts";

function readObject(path: string): TokenizerNode {
  let parsed: unknown;
  try {
    parsed = JSON.parse(readFileSync(path, "utf8"));
  } catch (cause) {
    throw new MistralError("invalid_model_file", `${path}: ${(cause as Error).message}`, { cause });
  }
  if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
    throw new MistralError("invalid_model_file", `${path}: is not a JSON object`);
  }
  return parsed as TokenizerNode;
}

function readOptional(path: string): TokenizerNode {
  return existsSync(path) ? readObject(path) : {};
}

/**
 * The tokenizer of a model folder: `tokenizer.json`, with `tokenizer_config.json` and `special_tokens_map.json`
 * where they are. Throws `model_not_found` without the first, `invalid_model_file` for malformed files and
 * `unsupported_model` for kinds of tokenizers that are not known.
 */
export function tokenizerFromFolder(folder: string): Tokenizer {
  const path = join(folder, "tokenizer.json");
  if (!existsSync(path)) throw new MistralError("model_not_found", `${folder}: there is no tokenizer.json`);
  return new TextTokenizer(
    partsFromJson(
      readObject(path),
      readOptional(join(folder, "tokenizer_config.json")),
      readOptional(join(folder, "special_tokens_map.json")),
    ),
  );
}

/**
 * The tokenizer in the metadata of a GGUF file. Throws `invalid_model_file` for malformed metadata and
 * `unsupported_model` for tokenizer models and pre-tokenizers that are not known.
 */
export function tokenizerFromGguf(metadata: ReadonlyMap<string, unknown>): Tokenizer {
  return new TextTokenizer(partsFromGguf(metadata));
}
