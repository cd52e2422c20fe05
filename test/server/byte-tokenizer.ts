/** A tokenizer small enough to see through: every byte is a token, and some words and special tokens are as well. */

import type { Tokenizer } from "../../src/text/types.ts";

const SPECIAL = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"] as const;
const WORDS = [" world", " the", "STOP", "ST", "OP", "\n\n"] as const;
const BYTES = 256;

export const BOS = BYTES;
export const EOS = BYTES + 1;

export class ByteTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  readonly bosToken: number | undefined;
  readonly eosToken = EOS;
  readonly bosText = "<s>";
  readonly eosText = "</s>";
  readonly unkText = "";
  readonly #entries: readonly Uint8Array[];

  /** @param options.bos whether texts begin with `<s>`; `specials` are further special tokens. */
  constructor(options: { readonly bos?: boolean; readonly specials?: readonly string[] } = {}) {
    this.bosToken = options.bos === true ? BOS : undefined;
    const encoder = new TextEncoder();
    const bytes = Array.from({ length: BYTES }, (_, byte) => Uint8Array.of(byte));
    const words = [...SPECIAL, ...WORDS, ...(options.specials ?? [])].map((text) => encoder.encode(text));
    this.#entries = [...bytes, ...words];
    this.vocabularySize = this.#entries.length;
  }

  encode(text: string, options: { readonly addSpecialTokens: boolean }): number[] {
    const bytes = new TextEncoder().encode(text);
    const tokens: number[] = [];
    let position = 0;
    while (position < bytes.length) {
      const token = this.#longestAt(bytes, position);
      tokens.push(token);
      position += this.#entries[token]!.length;
    }
    const bos = this.bosToken;
    if (options.addSpecialTokens && bos !== undefined && tokens[0] !== bos) tokens.unshift(bos);
    return tokens;
  }

  decode(tokens: readonly number[], options: { readonly skipSpecialTokens: boolean }): string {
    const kept = options.skipSpecialTokens ? tokens.filter((token) => !this.isSpecial(token)) : tokens;
    return new TextDecoder().decode(Buffer.concat(kept.map((token) => this.tokenBytes(token))));
  }

  tokenBytes(token: number): Uint8Array {
    const bytes = this.#entries[token];
    if (bytes === undefined) throw new RangeError(`no token ${token}`);
    return bytes;
  }

  isSpecial(token: number): boolean {
    const further = token >= BYTES + SPECIAL.length + WORDS.length;
    return further || (token >= BYTES && token < BYTES + SPECIAL.length);
  }

  tokenId(text: string): number | undefined {
    const tokens = this.encode(text, { addSpecialTokens: false });
    return tokens.length === 1 ? tokens[0] : undefined;
  }

  /** Words and special tokens before single bytes, the longest of them first. */
  #longestAt(bytes: Uint8Array, position: number): number {
    let best = bytes[position]!;
    for (let token = BYTES; token < this.#entries.length; token += 1) {
      const entry = this.#entries[token]!;
      if (entry.length <= this.#entries[best]!.length) continue;
      if (entry.every((byte, index) => bytes[position + index] === byte)) best = token;
    }
    return best;
  }
}
