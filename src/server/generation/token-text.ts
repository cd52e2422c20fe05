/** Tokens as log-probability reports describe them: their bytes, their alternatives and where they stand in the text. */

import type { TokenLogprob } from "../../engine/messages.ts";
import type { Tokenizer } from "../../text/types.ts";
import type { TextToken } from "./request.ts";

const NO_BYTES = new Uint8Array(0);

/** Follows one text token by token and tells where each begins, in UTF-16 units of the decoded text. */
export class TokenOffsets {
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  #length: number;

  /** @param start length of the text that stands before the first token. */
  constructor(start: number) {
    this.#length = start;
  }

  /** Where a token with these bytes begins. A token that ends inside a character begins where the character does. */
  next(bytes: Uint8Array): number {
    const offset = this.#length;
    this.#length += this.#decoder.decode(bytes, { stream: true }).length;
    return offset;
  }
}

/** @param offsets where this token stands; `visible` is false for a token that leaves nothing in the text. */
export function describeToken(
  tokenizer: Tokenizer,
  entry: TokenLogprob,
  offsets: TokenOffsets,
  visible: boolean,
): TextToken {
  const bytes = tokenizer.tokenBytes(entry.token);
  return {
    token: entry.token,
    bytes,
    logprob: entry.logprob,
    top: entry.top.map(({ token, logprob }) => ({ token, bytes: tokenizer.tokenBytes(token), logprob })),
    offset: offsets.next(visible ? bytes : NO_BYTES),
  };
}

/** The tokens of an echoed prompt; a BOS that the tokenizer put before the client's text takes no room in it. */
export function describePrompt(
  tokenizer: Tokenizer,
  tokens: Int32Array,
  text: string,
  logprobs: readonly (TokenLogprob | null)[],
): readonly TextToken[] {
  const offsets = new TokenOffsets(0);
  const addedBos = tokens[0] === tokenizer.bosToken && !text.startsWith(tokenizer.bosText);
  return Array.from(tokens, (token, position) => {
    const visible = !(position === 0 && addedBos);
    const entry = logprobs[position] ?? undefined;
    if (entry !== undefined) return describeToken(tokenizer, entry, offsets, visible);
    const bytes = tokenizer.tokenBytes(token);
    return { token, bytes, logprob: null, top: [], offset: offsets.next(visible ? bytes : NO_BYTES) };
  });
}
