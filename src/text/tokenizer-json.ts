/** The parts of a tokenizer from Hugging Face files: tokenizer.json, tokenizer_config.json, special_tokens_map.json. */

import { Tokenizer as LibraryTokenizer } from "@huggingface/tokenizers";
import { MistralError } from "../errors.ts";
import type { AddedToken } from "./added-tokens.ts";
import { rankedMerges } from "./merge-rules.ts";
import { compilePreTokenizer, type PreTokenizer, type TokenizerNode } from "./pre-tokenizer.ts";
import type { TokenizerParts } from "./text-tokenizer.ts";
import { compileDecoder } from "./token-decoder.ts";
import {
  ByteLevelModel,
  CharacterModel,
  type ModelVocabulary,
  type TokenModel,
  UnigramModel,
} from "./token-models.ts";

function invalid(message: string): MistralError {
  return new MistralError("invalid_model_file", `tokenizer.json: ${message}`);
}

/** An object of the file, or undefined where it is null or absent. */
function nodeOf(parent: TokenizerNode, key: string): TokenizerNode | undefined {
  const node = parent[key];
  if (node === null || node === undefined) return undefined;
  if (typeof node !== "object" || Array.isArray(node)) throw invalid(`"${key}" is not an object`);
  return node as TokenizerNode;
}

interface WritableVocabulary {
  readonly tokens: (string | undefined)[];
  readonly idOf: Map<string, number>;
}

/** Ids above this are a broken file: arrays are indexed by id. */
const TOKEN_ID_MAX = 16_777_216;

function addToken(vocabulary: WritableVocabulary, text: string, id: unknown): void {
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id > TOKEN_ID_MAX) {
    throw invalid(
      `token ${JSON.stringify(text)} has the id ${JSON.stringify(id)}; ids are 0 to ${TOKEN_ID_MAX}`,
    );
  }
  vocabulary.tokens[id] = text;
  vocabulary.idOf.set(text, id);
}

function readVocabulary(model: TokenizerNode): WritableVocabulary {
  const vocabulary: WritableVocabulary = { tokens: [], idOf: new Map() };
  const stored = model.vocab;
  if (Array.isArray(stored)) {
    stored.forEach((entry: unknown, id) => {
      const text: unknown = Array.isArray(entry) ? entry[0] : entry;
      if (typeof text !== "string") throw invalid(`vocabulary entry ${id} has no text`);
      addToken(vocabulary, text, id);
    });
  } else if (typeof stored === "object" && stored !== null) {
    for (const text in stored) addToken(vocabulary, text, (stored as TokenizerNode)[text]);
  } else throw invalid("the model has no vocabulary");
  return vocabulary;
}

function readAddedTokens(definition: TokenizerNode, vocabulary: WritableVocabulary): AddedToken[] {
  const stored = definition.added_tokens ?? [];
  if (!Array.isArray(stored)) throw invalid('"added_tokens" is not a list');
  return stored.map((entry: TokenizerNode) => {
    const text = entry.content;
    if (typeof text !== "string") throw invalid("an added token has no content");
    // A token that the vocabulary has keeps its id there.
    const token = vocabulary.idOf.get(text);
    if (token === undefined) addToken(vocabulary, text, entry.id);
    const special = entry.special === true;
    return {
      token: token ?? (entry.id as number),
      text,
      special,
      normalized: typeof entry.normalized === "boolean" ? entry.normalized : !special,
      singleWord: entry.single_word === true,
      leftStrip: entry.lstrip === true,
      rightStrip: entry.rstrip === true,
    };
  });
}

function buildModel(
  model: TokenizerNode,
  vocabulary: ModelVocabulary,
  preTokenizer: PreTokenizer | undefined,
): TokenModel {
  const type = model.type ?? (Array.isArray(model.merges) ? "BPE" : "Unigram");
  const byteFallback = model.byte_fallback === true;
  if (type === "Unigram") {
    const scores = (model.vocab as unknown[]).map((entry) => Number((entry as unknown[])[1]));
    return new UnigramModel(vocabulary, scores, { byteFallback });
  }
  if (type !== "BPE") {
    throw new MistralError(
      "unsupported_model",
      `tokenizer.json: model type ${String(type)} is not supported`,
    );
  }
  for (const key of ["continuing_subword_prefix", "end_of_word_suffix"]) {
    if (model[key] !== undefined && model[key] !== null && model[key] !== "") {
      throw new MistralError("unsupported_model", `tokenizer.json: BPE with ${key} is not supported`);
    }
  }
  const merges = model.merges;
  if (!Array.isArray(merges)) throw invalid("the BPE model has no merges");
  const rules = rankedMerges(vocabulary.tokens, vocabulary.idOf, merges as string[] | [string, string][]);
  const ignoreMerges = model.ignore_merges === true;
  if (preTokenizer?.byteLevel === true) return new ByteLevelModel(vocabulary, rules, ignoreMerges);
  return new CharacterModel(vocabulary, rules, {
    byteFallback,
    fuseUnknown: model.fuse_unk === true,
    ignoreMerges,
  });
}

/** The library's normalizer and post-processor, without its model. */
function librarySteps(definition: TokenizerNode): LibraryTokenizer {
  try {
    return new LibraryTokenizer(
      {
        model: { type: "BPE", vocab: {}, merges: [] },
        decoder: null,
        pre_tokenizer: null,
        added_tokens: [],
        normalizer: definition.normalizer ?? null,
        post_processor: definition.post_processor ?? null,
      },
      {},
    );
  } catch (cause) {
    throw new MistralError("unsupported_model", `tokenizer.json: ${(cause as Error).message}`, { cause });
  }
}

/** No token text: marks where the text stands among the tokens that the post-processor adds. */
const TEXT_MARK = "\ud800";

function surroundings(
  steps: LibraryTokenizer,
  vocabulary: ModelVocabulary,
): { prefix: number[]; suffix: number[] } {
  if (steps.post_processor === null) return { prefix: [], suffix: [] };
  const { tokens } = steps.post_processor([TEXT_MARK], null, true) as { tokens: string[] };
  const ids = tokens.map((text) => {
    const id = text === TEXT_MARK ? -1 : vocabulary.idOf.get(text);
    if (id === undefined) throw invalid(`the post-processor adds ${JSON.stringify(text)}, which is no token`);
    return id;
  });
  const at = ids.indexOf(-1);
  return { prefix: ids.slice(0, at), suffix: ids.slice(at + 1) };
}

/** `"<s>"` or `{"content": "<s>"}`. */
function specialText(config: TokenizerNode, key: string): string | undefined {
  const value = config[key];
  const text = typeof value === "object" && value !== null ? (value as TokenizerNode).content : value;
  return typeof text === "string" ? text : undefined;
}

/** These classes of `transformers` rebuild the post-processor from `add_bos_token` / `add_eos_token`. */
const CONFIGURED_CLASSES = /^(Llama|CodeLlama|Gemma)Tokenizer(Fast)?$/;

/**
 * Reads parsed files; `config` and `specialTokensMap` are `{}` where there is no such file. Throws
 * `invalid_model_file` for malformed and `unsupported_model` for unknown content.
 */
export function partsFromJson(
  definition: TokenizerNode,
  config: TokenizerNode,
  specialTokensMap: TokenizerNode,
): TokenizerParts {
  const model = nodeOf(definition, "model");
  if (model === undefined) throw invalid("there is no model");
  const writable = readVocabulary(model);
  const added = readAddedTokens(definition, writable);
  const special = (key: string): number | undefined => {
    const text = specialText(config, key) ?? specialText(specialTokensMap, key);
    return text === undefined ? undefined : writable.idOf.get(text);
  };
  const unknownText = model.unk_token;
  const unknownId = typeof unknownText === "string" ? writable.idOf.get(unknownText) : model.unk_id;
  const vocabulary: ModelVocabulary = {
    ...writable,
    unknown: typeof unknownId === "number" ? unknownId : undefined,
  };
  const preTokenizer = compilePreTokenizer(nodeOf(definition, "pre_tokenizer"));
  const steps = librarySteps(definition);
  const { normalizer } = steps;
  const bosToken = special("bos_token");
  const eosToken = special("eos_token");
  let { prefix, suffix } = surroundings(steps, vocabulary);
  if (CONFIGURED_CLASSES.test(String(config.tokenizer_class))) {
    const { add_bos_token: addBos, add_eos_token: addEos } = config;
    if (bosToken !== undefined && typeof addBos === "boolean") prefix = addBos ? [bosToken] : [];
    if (eosToken !== undefined && typeof addEos === "boolean") suffix = addEos ? [eosToken] : [];
  }
  return {
    vocabulary,
    added,
    model: buildModel(model, vocabulary, preTokenizer),
    decoder: compileDecoder(nodeOf(definition, "decoder")),
    normalize: normalizer === null ? undefined : (text) => normalizer(text),
    preTokenizer,
    prefix,
    suffix,
    bosToken,
    eosToken,
    unkToken: special("unk_token") ?? vocabulary.unknown,
  };
}
