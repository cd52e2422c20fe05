/** The parts of a tokenizer from the `tokenizer.ggml.*` metadata of a GGUF file. */

import { MistralError } from "../errors.ts";
import type { AddedToken } from "./added-tokens.ts";
import { ggufPreTokenizer } from "./gguf-pre-tokenizers.ts";
import { rankedMerges, ScoredMerges } from "./merge-rules.ts";
import { compilePreTokenizer } from "./pre-tokenizer.ts";
import type { TokenizerParts } from "./text-tokenizer.ts";
import { BYTE_LEVEL_DECODER, sentencePieceDecoder } from "./token-decoder.ts";
import { ByteLevelModel, CharacterModel, type ModelVocabulary, SPACE_MARKER } from "./token-models.ts";

type Metadata = ReadonlyMap<string, unknown>;

// `tokenizer.ggml.token_type`
const TYPE_UNKNOWN = 2;
const TYPE_CONTROL = 3;
const TYPE_USER_DEFINED = 4;
const TYPE_BYTE = 6;

const PREFIX = "tokenizer.ggml.";

function invalid(key: string, message: string): MistralError {
  return new MistralError("invalid_model_file", `GGUF metadata ${PREFIX}${key}: ${message}`, {
    parameter: PREFIX + key,
  });
}

function strings(metadata: Metadata, key: string): readonly string[] {
  const list = metadata.get(PREFIX + key);
  if (!Array.isArray(list)) throw invalid(key, list === undefined ? "is missing" : "is not an array");
  for (let at = 0; at < list.length; at++) {
    if (typeof list[at] !== "string") throw invalid(key, `element ${at} is not a string`);
  }
  return list;
}

/** Numbers, one for each token; undefined where the key is absent. */
function numbers(metadata: Metadata, key: string, count: number): ArrayLike<number> | undefined {
  const list = metadata.get(PREFIX + key);
  if (list === undefined) return undefined;
  if (!Array.isArray(list) && !ArrayBuffer.isView(list)) throw invalid(key, "is not an array");
  const values = list as unknown as ArrayLike<number>;
  if (values.length !== count) throw invalid(key, `has ${values.length} elements for ${count} tokens`);
  return values;
}

function flag(metadata: Metadata, key: string, otherwise: boolean): boolean {
  const value = metadata.get(PREFIX + key);
  if (value === undefined) return otherwise;
  if (typeof value !== "boolean") throw invalid(key, "is not a boolean");
  return value;
}

function tokenAt(metadata: Metadata, key: string, count: number, otherwise?: number): number | undefined {
  const stored = metadata.get(PREFIX + key);
  if (stored === undefined) return otherwise !== undefined && otherwise < count ? otherwise : undefined;
  const token = Number(stored);
  if (!Number.isInteger(token) || token < 0 || token >= count) {
    throw invalid(key, `is ${String(stored)}, but the vocabulary has ${count} tokens`);
  }
  return token;
}

interface Base {
  readonly tokens: readonly string[];
  readonly idOf: Map<string, number>;
  readonly types: ArrayLike<number> | undefined;
  readonly bosToken: number | undefined;
  readonly eosToken: number | undefined;
  readonly unkToken: number | undefined;
  readonly added: AddedToken[];
}

/** `defaults`: BOS, EOS and unknown tokens of files that do not say. */
function readBase(metadata: Metadata, defaults: { bos?: number; eos?: number; unk?: number }): Base {
  const tokens = strings(metadata, "tokens");
  const count = tokens.length;
  if (count === 0) throw invalid("tokens", "is empty");
  const types = numbers(metadata, "token_type", count);
  const idOf = new Map<string, number>();
  // From the end, so that of equal texts the first keeps its id.
  for (let token = count - 1; token >= 0; token--) idOf.set(tokens[token]!, token);
  const bosToken = tokenAt(metadata, "bos_token_id", count, defaults.bos);
  const eosToken = tokenAt(metadata, "eos_token_id", count, defaults.eos);
  const unkToken = tokenAt(metadata, "unknown_token_id", count, defaults.unk);

  const added: AddedToken[] = [];
  for (let token = 0; token < count; token++) {
    const type = types?.[token];
    const named = token === bosToken || token === eosToken || token === unkToken;
    const special = named || type === TYPE_CONTROL || type === TYPE_UNKNOWN;
    if (!special && type !== TYPE_USER_DEFINED) continue;
    added.push(addedToken(token, tokens[token]!, special));
  }
  return { tokens, idOf, types, bosToken, eosToken, unkToken, added };
}

function addedToken(token: number, text: string, special: boolean): AddedToken {
  return { token, text, special, normalized: false, singleWord: false, leftStrip: false, rightStrip: false };
}

function present(token: number | undefined): number[] {
  return token === undefined ? [] : [token];
}

function surroundings(
  metadata: Metadata,
  base: Base,
  addBos: boolean,
): { prefix: number[]; suffix: number[] } {
  return {
    prefix: flag(metadata, "add_bos_token", addBos) ? present(base.bosToken) : [],
    suffix: flag(metadata, "add_eos_token", false) ? present(base.eosToken) : [],
  };
}

function byteLevelParts(metadata: Metadata): TokenizerParts {
  const pre = ggufPreTokenizer(metadata.get(`${PREFIX}pre`));
  const base = readBase(metadata, {});
  const vocabulary: ModelVocabulary = { tokens: base.tokens, idOf: base.idOf, unknown: undefined };
  const rules = rankedMerges(base.tokens, base.idOf, strings(metadata, "merges"));
  const splits = pre.patterns.map((Regex) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated" }));
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, use_regex: false };
  const { normalization } = pre;
  return {
    vocabulary,
    added: base.added,
    model: new ByteLevelModel(vocabulary, rules, pre.ignoreMerges ?? false),
    decoder: BYTE_LEVEL_DECODER,
    normalize: normalization === undefined ? undefined : (text) => text.normalize(normalization),
    preTokenizer: compilePreTokenizer({ type: "Sequence", pretokenizers: [...splits, byteLevel] }),
    ...surroundings(metadata, base, pre.addBos ?? false),
    bosToken: base.bosToken,
    eosToken: base.eosToken,
    unkToken: base.unkToken,
  };
}

/**
 * Converters write user-defined pieces with plain spaces. They are found in the text as it is, and also where it
 * has space markers; as pieces that merge they are written with markers like all others.
 */
function withSpaceMarkers(base: Base): { tokens: readonly string[]; added: AddedToken[] } {
  const tokens = base.tokens.slice();
  const added = base.added.slice();
  for (const plain of base.added) {
    if (!plain.text.includes(" ")) continue;
    const text = plain.text.replaceAll(" ", SPACE_MARKER);
    if (base.idOf.has(text)) continue;
    base.idOf.set(text, plain.token);
    tokens[plain.token] = text;
    added.push({ ...plain, text });
  }
  return { tokens, added };
}

function sentencePieceParts(metadata: Metadata): TokenizerParts {
  const base = readBase(metadata, { bos: 1, eos: 2, unk: 0 });
  const { idOf, types } = base;
  const scores = numbers(metadata, "scores", base.tokens.length);
  if (scores === undefined) throw invalid("scores", "is missing");
  const { tokens, added } = withSpaceMarkers(base);
  const vocabulary: ModelVocabulary = { tokens, idOf, unknown: base.unkToken };
  const scoreOf = (token: number): number => {
    const type = types?.[token];
    // User-defined pieces come before all others, whatever score the converter gave them.
    if (type === TYPE_USER_DEFINED) return 0;
    return type === TYPE_CONTROL || type === TYPE_UNKNOWN || type === TYPE_BYTE ? Number.NaN : scores[token]!;
  };
  const addSpacePrefix = flag(metadata, "add_space_prefix", true);
  const start = addSpacePrefix ? SPACE_MARKER : "";
  return {
    vocabulary,
    added,
    model: new CharacterModel(vocabulary, new ScoredMerges(tokens, idOf, scoreOf), {
      byteFallback: true,
      fuseUnknown: true,
      ignoreMerges: false,
    }),
    decoder: sentencePieceDecoder(addSpacePrefix),
    normalize: (text) => start + text.replaceAll(" ", SPACE_MARKER),
    preTokenizer: undefined,
    ...surroundings(metadata, base, true),
    bosToken: base.bosToken,
    eosToken: base.eosToken,
    unkToken: base.unkToken,
  };
}

/** Throws `invalid_model_file` for malformed and `unsupported_model` for unknown content. */
export function partsFromGguf(metadata: Metadata): TokenizerParts {
  const model = metadata.get(`${PREFIX}model`);
  switch (model) {
    case "gpt2":
      return byteLevelParts(metadata);
    case "llama":
      return sentencePieceParts(metadata);
    case undefined:
      throw invalid("model", "is missing: the file has no tokenizer; give a tokenizer.json");
    default:
      throw new MistralError(
        "unsupported_model",
        `the GGUF file's tokenizer model "${String(model)}" (${PREFIX}model) is not supported; known are: gpt2, llama`,
        { parameter: `${PREFIX}model` },
      );
  }
}
