/**
 * From a word to token ids: byte-level BPE, BPE over characters (SentencePiece with byte fallback) and unigram.
 * A word is what the pre-tokenizer cut out; its length is not bounded.
 */

import { BYTE_TO_CHARACTER, byteLevelText } from "./byte-level.ts";
import { MergeEncoder } from "./merge-encoder.ts";
import type { MergeRules } from "./merge-rules.ts";
import { WordCache } from "./word-cache.ts";

export interface TokenModel {
  /** Appends the tokens of one word (well-formed UTF-16) to `output`. */
  encode(word: string, output: number[]): void;
}

export interface ModelVocabulary {
  /** Text of each id as the vocabulary writes it; ids without a token are undefined. */
  readonly tokens: readonly (string | undefined)[];
  readonly idOf: ReadonlyMap<string, number>;
  /** Token for what the vocabulary cannot write, where there is one. */
  readonly unknown: number | undefined;
}

const utf8 = new TextEncoder();

/** SentencePiece's visible space. */
export const SPACE_MARKER = "\u2581";
const SPACE_MARKER_CODE = 0x2581;

export class ByteLevelModel implements TokenModel {
  private readonly byteToken = new Int32Array(256);
  private readonly cache = new WordCache();
  private readonly merger: MergeEncoder;

  /** With `ignoreMerges` a word that is a token is that token, whether or not merges lead there. */
  constructor(
    private readonly vocabulary: ModelVocabulary,
    rules: MergeRules,
    private readonly ignoreMerges: boolean,
  ) {
    this.merger = new MergeEncoder(rules);
    for (let byte = 0; byte < 256; byte++) {
      const text = String.fromCharCode(BYTE_TO_CHARACTER[byte]!);
      this.byteToken[byte] = vocabulary.idOf.get(text) ?? vocabulary.unknown ?? -1;
    }
  }

  encode(word: string, output: number[]): void {
    this.cache.encode(word, output, this.encodeUncached);
  }

  private readonly encodeUncached = (word: string, output: number[]): void => {
    const bytes = utf8.encode(word);
    if (this.ignoreMerges) {
      const token = this.vocabulary.idOf.get(byteLevelText(bytes));
      if (token !== undefined) {
        output.push(token);
        return;
      }
    }
    for (const byte of bytes) {
      const token = this.byteToken[byte]!;
      if (token >= 0) this.merger.add(token);
    }
    this.merger.finish(output);
  };
}

export interface CharacterModelOptions {
  /** Characters outside the vocabulary become their `<0xNN>` tokens. */
  readonly byteFallback: boolean;
  /** Neighbouring unknown characters become one unknown token. */
  readonly fuseUnknown: boolean;
  readonly ignoreMerges: boolean;
}

/** Token ids of the 256 `<0xNN>` byte tokens; undefined when any is missing. */
function byteTokens(idOf: ReadonlyMap<string, number>): Int32Array | undefined {
  const tokens = new Int32Array(256);
  for (let byte = 0; byte < 256; byte++) {
    const token = idOf.get(`<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`);
    if (token === undefined) return undefined;
    tokens[byte] = token;
  }
  return tokens;
}

const NOT_LOOKED_UP = -2;

export class CharacterModel implements TokenModel {
  private readonly cache = new WordCache();
  private readonly merger: MergeEncoder;
  private readonly byteToken: Int32Array | undefined;
  /** Token of each character of the basic plane, -1 for none; filled as they are met. */
  private readonly characterToken = new Int32Array(0x10000).fill(NOT_LOOKED_UP);
  private cutAfter: Uint8Array | undefined;

  constructor(
    private readonly vocabulary: ModelVocabulary,
    rules: MergeRules,
    private readonly options: CharacterModelOptions,
  ) {
    this.merger = new MergeEncoder(rules);
    this.byteToken = options.byteFallback ? byteTokens(vocabulary.idOf) : undefined;
  }

  /**
   * A vocabulary of this kind has no pre-tokenizer: a "word" may be a whole document. It is cut before a space
   * marker wherever no token contains the two characters on the sides of the cut: no merge can cross there, so
   * the result is the same as without the cut, and words can be cached.
   */
  encode(word: string, output: number[]): void {
    if (this.options.ignoreMerges) {
      const token = this.vocabulary.idOf.get(word);
      if (token !== undefined) {
        output.push(token);
        return;
      }
    }
    this.cutAfter ??= this.safeCuts();
    let start = 0;
    for (let at = word.indexOf(SPACE_MARKER, 1); at > 0; at = word.indexOf(SPACE_MARKER, at + 1)) {
      if (this.cutAfter[word.charCodeAt(at - 1)] === 0) continue;
      this.cache.encode(word.slice(start, at), output, this.encodeUncached);
      start = at;
    }
    if (start < word.length) this.cache.encode(word.slice(start), output, this.encodeUncached);
  }

  private readonly encodeUncached = (word: string, output: number[]): void => {
    const { merger, byteToken, options, vocabulary } = this;
    for (let at = 0; at < word.length; ) {
      const code = word.codePointAt(at)!;
      const width = code > 0xffff ? 2 : 1;
      const token = width === 2 ? (vocabulary.idOf.get(word.slice(at, at + 2)) ?? -1) : this.tokenOf(code);
      if (token >= 0) merger.add(token);
      else if (byteToken !== undefined) {
        for (const byte of utf8.encode(word.slice(at, at + width))) merger.add(byteToken[byte]!);
      } else if (vocabulary.unknown !== undefined) {
        if (!options.fuseUnknown || merger.last !== vocabulary.unknown) merger.add(vocabulary.unknown);
      }
      at += width;
    }
    merger.finish(output);
  };

  private tokenOf(code: number): number {
    let token = this.characterToken[code]!;
    if (token === NOT_LOOKED_UP) {
      token = this.vocabulary.idOf.get(String.fromCharCode(code)) ?? -1;
      this.characterToken[code] = token;
    }
    return token;
  }

  /** 1 for every UTF-16 unit that no token has directly before a space marker. */
  private safeCuts(): Uint8Array {
    // A marker outside the vocabulary would fuse with an unknown character before it.
    const safe = new Uint8Array(0x10000).fill(this.tokenOf(SPACE_MARKER_CODE) < 0 ? 0 : 1);
    for (const token of this.vocabulary.tokens) {
      if (token === undefined) continue;
      for (let at = token.indexOf(SPACE_MARKER, 1); at > 0; at = token.indexOf(SPACE_MARKER, at + 1)) {
        safe[token.charCodeAt(at - 1)] = 0;
      }
    }
    return safe;
  }
}

/** How much worse than the worst piece an unknown character is. */
const UNKNOWN_PENALTY = 10;

/** SentencePiece unigram: the segmentation with the best sum of scores. */
export class UnigramModel implements TokenModel {
  private readonly cache = new WordCache();
  private readonly byteToken: Int32Array | undefined;
  private readonly pieceLengthMax: number;
  private readonly unknownScore: number;

  constructor(
    private readonly vocabulary: ModelVocabulary,
    private readonly scores: ArrayLike<number>,
    options: { readonly byteFallback: boolean },
  ) {
    this.byteToken = options.byteFallback ? byteTokens(vocabulary.idOf) : undefined;
    let lengthMax = 1;
    let worst = 0;
    for (let token = 0; token < vocabulary.tokens.length; token++) {
      lengthMax = Math.max(lengthMax, vocabulary.tokens[token]?.length ?? 0);
      worst = Math.min(worst, scores[token] ?? 0);
    }
    this.pieceLengthMax = lengthMax;
    this.unknownScore = worst - UNKNOWN_PENALTY;
  }

  encode(word: string, output: number[]): void {
    this.cache.encode(word, output, this.encodeUncached);
  }

  private readonly encodeUncached = (word: string, output: number[]): void => {
    const { idOf } = this.vocabulary;
    const length = word.length;
    // Best score of a path to each position, and where its last piece starts.
    const best = new Float64Array(length + 1).fill(Number.NEGATIVE_INFINITY);
    const from = new Int32Array(length + 1);
    const piece = new Int32Array(length + 1);
    best[0] = 0;
    const offer = (start: number, end: number, token: number, score: number): void => {
      const candidate = best[start]! + score;
      if (candidate <= best[end]!) return;
      best[end] = candidate;
      from[end] = start;
      piece[end] = token;
    };
    for (let start = 0; start < length; ) {
      const width = word.codePointAt(start)! > 0xffff ? 2 : 1;
      let hasCharacter = false;
      for (let size = width; size <= this.pieceLengthMax && start + size <= length; size++) {
        const token = idOf.get(word.slice(start, start + size));
        if (token === undefined || token === this.vocabulary.unknown) continue;
        offer(start, start + size, token, this.scores[token]!);
        if (size === width) hasCharacter = true;
      }
      if (!hasCharacter) offer(start, start + width, -1, this.unknownScore);
      start += width;
    }
    this.emit(word, from, piece, output);
  };

  private emit(word: string, from: Int32Array, piece: Int32Array, output: number[]): void {
    const ends: number[] = [];
    for (let end = word.length; end > 0; end = from[end]!) ends.push(end);
    let unknownStart = -1;
    for (let i = ends.length - 1; i >= 0; i--) {
      const end = ends[i]!;
      if (piece[end]! < 0) {
        if (unknownStart < 0) unknownStart = from[end]!;
        continue;
      }
      if (unknownStart >= 0) this.emitUnknown(word.slice(unknownStart, from[end]!), output);
      unknownStart = -1;
      output.push(piece[end]!);
    }
    if (unknownStart >= 0) this.emitUnknown(word.slice(unknownStart), output);
  }

  private emitUnknown(text: string, output: number[]): void {
    if (this.byteToken !== undefined)
      for (const byte of utf8.encode(text)) output.push(this.byteToken[byte]!);
    else if (this.vocabulary.unknown !== undefined) output.push(this.vocabulary.unknown);
  }
}
