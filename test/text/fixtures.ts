/** The tokenizer fixtures, as tokenizer.json and as the GGUF metadata that a converter would make of it. */

import { readFileSync } from "node:fs";
import { join } from "node:path";

interface AddedTokenEntry {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
}

export interface TokenizerDefinition {
  readonly [key: string]: unknown;
  readonly added_tokens: readonly AddedTokenEntry[];
  readonly model: {
    readonly [key: string]: unknown;
    readonly vocab: Readonly<Record<string, number>>;
    readonly merges: readonly (readonly [string, string])[];
  };
}

export const FIXTURES = join(import.meta.dir, "../fixtures/text");

export function readLines<T>(name: string): T[] {
  const lines = readFileSync(join(FIXTURES, name), "utf8").trimEnd().split("\n");
  return lines.map((line) => JSON.parse(line) as T);
}

export const TOKENIZERS: ReadonlyMap<string, TokenizerDefinition> = new Map(
  readLines<{ name: string; definition: TokenizerDefinition }>("tokenizers.jsonl").map(
    ({ name, definition }) => [name, definition],
  ),
);

export function definitionOf(name: string): TokenizerDefinition {
  const definition = TOKENIZERS.get(name);
  if (definition === undefined) throw new Error(`no tokenizer fixture ${name}`);
  return definition;
}

/** A definition with other contents in some places. */
export function changed(name: string, changes: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return { ...structuredClone(definitionOf(name)), ...changes };
}

const NORMAL = 1;
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;
const BYTE = 6;

function tokenTypes(definition: TokenizerDefinition, tokens: readonly string[]): number[] {
  const types: number[] = tokens.map((text) => (/^<0x[0-9A-F]{2}>$/.test(text) ? BYTE : NORMAL));
  for (const { id, content, special } of definition.added_tokens) {
    types[id] = special ? (content === "<unk>" ? UNKNOWN : CONTROL) : USER_DEFINED;
  }
  return types;
}

function baseMetadata(definition: TokenizerDefinition): Map<string, unknown> {
  const tokens: string[] = [];
  for (const [text, id] of Object.entries(definition.model.vocab)) tokens[id] = text;
  for (const { id, content } of definition.added_tokens) tokens[id] = content;
  return new Map<string, unknown>([
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", tokenTypes(definition, tokens)],
  ]);
}

/** Metadata of a byte-level BPE model. */
export function byteLevelMetadata(name: string, pre: string, bos?: string): Map<string, unknown> {
  const definition = definitionOf(name);
  const metadata = baseMetadata(definition);
  metadata.set("tokenizer.ggml.model", "gpt2");
  metadata.set("tokenizer.ggml.pre", pre);
  metadata.set(
    "tokenizer.ggml.merges",
    definition.model.merges.map(([left, right]) => `${left} ${right}`),
  );
  if (bos !== undefined) metadata.set("tokenizer.ggml.bos_token_id", definition.model.vocab[bos]);
  return metadata;
}

/** Metadata of a SentencePiece model; user-defined pieces have plain spaces, as converters write them. */
export function sentencePieceMetadata(name: string): Map<string, unknown> {
  const definition = definitionOf(name);
  const metadata = baseMetadata(definition);
  const tokens = metadata.get("tokenizer.ggml.tokens") as string[];
  const types = metadata.get("tokenizer.ggml.token_type") as number[];
  let rank = 0;
  metadata.set(
    "tokenizer.ggml.scores",
    types.map((type) => (type === NORMAL ? -rank++ : type === BYTE ? 0 : -1000)),
  );
  metadata.set(
    "tokenizer.ggml.tokens",
    tokens.map((text, id) => (types[id] === USER_DEFINED ? text.replaceAll("▁", " ") : text)),
  );
  metadata.set("tokenizer.ggml.model", "llama");
  return metadata;
}
