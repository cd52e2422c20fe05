/**
 * The tokenizer itself: the pipeline added tokens -> normalizer -> pre-tokenizer -> model, and back from tokens
 * to bytes to text. Where its parts come from (tokenizer.json, GGUF) is not its business.
 */

import { MistralError } from "../errors.ts";
import { type AddedToken, AddedTokenMatcher } from "./added-tokens.ts";
import type { PreTokenizer } from "./pre-tokenizer.ts";
import type { TokenDecoder } from "./token-decoder.ts";
import type { ModelVocabulary, TokenModel } from "./token-models.ts";
import type { Tokenizer } from "./types.ts";

export interface TokenizerParts {
  readonly vocabulary: ModelVocabulary;
  readonly added: readonly AddedToken[];
  readonly model: TokenModel;
  readonly decoder: TokenDecoder;
  readonly normalize: ((text: string) => string) | undefined;
  readonly preTokenizer: PreTokenizer | undefined;
  /** Tokens put before and after a text when special tokens are asked for. */
  readonly prefix: readonly number[];
  readonly suffix: readonly number[];
  readonly bosToken: number | undefined;
  readonly eosToken: number | undefined;
  readonly unkToken: number | undefined;
}

const NO_BYTES = new Uint8Array(0);
/** U+FEFF is a character of the text, not a byte order mark. */
const utf8 = new TextDecoder("utf-8", { ignoreBOM: true });

/** Text of these bytes; what is not UTF-8 becomes U+FFFD as the Encoding Standard has it. */
export function decodeUtf8(bytes: Uint8Array): string {
  return utf8.decode(bytes);
}

export class TextTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  readonly bosToken: number | undefined;
  readonly eosToken: number | undefined;
  readonly bosText: string;
  readonly eosText: string;
  readonly unkText: string;
  private readonly writtenTokens: AddedTokenMatcher;
  private readonly normalizedTokens: AddedTokenMatcher;
  private readonly addedById = new Map<number, AddedToken>();
  private readonly bytesOf: (Uint8Array | undefined)[] = [];

  constructor(private readonly parts: TokenizerParts) {
    const { vocabulary } = parts;
    this.vocabularySize = vocabulary.tokens.length;
    this.bosToken = parts.bosToken;
    this.eosToken = parts.eosToken;
    const textOf = (token: number | undefined) =>
      token === undefined ? "" : (vocabulary.tokens[token] ?? "");
    this.bosText = textOf(parts.bosToken);
    this.eosText = textOf(parts.eosToken);
    this.unkText = textOf(parts.unkToken);

    const written: { token: AddedToken; written: string }[] = [];
    const normalized: { token: AddedToken; written: string }[] = [];
    for (const token of parts.added) {
      this.addedById.set(token.token, token);
      (token.normalized ? normalized : written).push({ token, written: this.writtenForm(token) });
    }
    this.writtenTokens = new AddedTokenMatcher(written);
    this.normalizedTokens = new AddedTokenMatcher(normalized);
  }

  encode(text: string, { addSpecialTokens }: { readonly addSpecialTokens: boolean }): number[] {
    const tokens: number[] = [];
    // A lone surrogate has no UTF-8; U+FFFD stands for it, as it would after any round trip.
    const sections = this.writtenTokens.split(text.isWellFormed() ? text : text.toWellFormed());
    for (let i = 0; i < sections.length; i++) {
      const section = sections[i]!;
      if (typeof section === "number") tokens.push(section);
      else this.encodeSection(section, i === 0, tokens);
    }
    if (!addSpecialTokens) return tokens;
    const { prefix, suffix, bosToken } = this.parts;
    const begins = tokens.length > 0 && tokens[0] === bosToken;
    return (begins ? prefix.filter((token) => token !== bosToken) : prefix).concat(tokens, suffix);
  }

  decode(tokens: readonly number[], { skipSpecialTokens }: { readonly skipSpecialTokens: boolean }): string {
    let length = 0;
    for (const token of tokens) length += this.tokenBytes(token).length;
    const bytes = new Uint8Array(length);
    let end = 0;
    for (const token of tokens) {
      if (skipSpecialTokens && this.isSpecial(token)) continue;
      const part = this.tokenBytes(token);
      bytes.set(part, end);
      end += part.length;
    }
    let start = 0;
    while (start < this.parts.decoder.leadingSpaces && start < end && bytes[start] === 0x20) start++;
    return decodeUtf8(bytes.subarray(start, end));
  }

  /** Ids that have no token (models pad their vocabulary) stand for no bytes. Throws for what is not an id. */
  tokenBytes(token: number): Uint8Array {
    const known = this.bytesOf[token];
    if (known !== undefined) return known;
    if (!Number.isInteger(token) || token < 0) {
      throw new MistralError("invalid_request", `${token} is not a token id; ids are whole numbers from 0`);
    }
    const text = this.parts.vocabulary.tokens[token];
    if (text === undefined) return NO_BYTES;
    const { decoder } = this.parts;
    const added = this.addedById.get(token);
    const bytes = added === undefined ? decoder.bytes(text) : decoder.addedBytes(this.writtenForm(added));
    this.bytesOf[token] = bytes;
    return bytes;
  }

  isSpecial(token: number): boolean {
    return this.addedById.get(token)?.special ?? false;
  }

  tokenId(text: string): number | undefined {
    return this.parts.vocabulary.idOf.get(text);
  }

  /** A token that is looked for in normalized text is itself normalized. */
  private writtenForm(token: AddedToken): string {
    const { normalize } = this.parts;
    return token.normalized && normalize !== undefined ? normalize(token.text) : token.text;
  }

  private encodeSection(section: string, first: boolean, output: number[]): void {
    const { normalize } = this.parts;
    const text = normalize === undefined ? section : normalize(section);
    if (this.normalizedTokens.size === 0) {
      this.encodeText(text, first, output);
      return;
    }
    const parts = this.normalizedTokens.split(text);
    for (let i = 0; i < parts.length; i++) {
      const part = parts[i]!;
      if (typeof part === "number") output.push(part);
      else this.encodeText(part, first && i === 0, output);
    }
  }

  private encodeText(text: string, first: boolean, output: number[]): void {
    const { model, preTokenizer } = this.parts;
    if (text === "") return;
    if (preTokenizer === undefined) model.encode(text, output);
    else for (const word of preTokenizer.split(text, first)) model.encode(word, output);
  }
}
