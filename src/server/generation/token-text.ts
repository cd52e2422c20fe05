/** Tokens as log-probability reports describe them: their bytes, their alternatives and where they stand in the text. */

import type { TokenLogprob } from "../../engine/messages.ts";
import { TextStream } from "../../text/text-stream.ts";
import type { Tokenizer } from "../../text/types.ts";
import type { TextToken } from "./request.ts";

/** @param offset where the token begins in its choice's text. */
export function describeToken(tokenizer: Tokenizer, entry: TokenLogprob, offset: number): TextToken {
  return {
    token: entry.token,
    bytes: tokenizer.tokenBytes(entry.token),
    logprob: entry.logprob,
    top: entry.top.map(({ token, logprob }) => ({ token, bytes: tokenizer.tokenBytes(token), logprob })),
    offset,
  };
}

/** The tokens of an echoed prompt; a BOS that the tokenizer put before the client's text takes no room in it. */
export function describePrompt(
  tokenizer: Tokenizer,
  tokens: Int32Array,
  text: string,
  logprobs: readonly (TokenLogprob | null)[],
): readonly TextToken[] {
  const decoded = new TextStream(tokenizer, { stop: [], skipSpecialTokens: false });
  const addedBos = tokens[0] === tokenizer.bosToken && !text.startsWith(tokenizer.bosText);
  return Array.from(tokens, (token, position) => {
    const offset = decoded.length;
    if (!(position === 0 && addedBos)) decoded.push(token);
    const entry = logprobs[position] ?? undefined;
    if (entry !== undefined) return describeToken(tokenizer, entry, offset);
    return { token, bytes: tokenizer.tokenBytes(token), logprob: null, top: [], offset };
  });
}
