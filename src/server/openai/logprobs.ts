/** Log-probabilities of tokens in OpenAI's two shapes. All are natural logarithms. */

import type { TextToken } from "../generation/request.ts";
import type { ChatLogprobs, CompletionLogprobs } from "./responses.ts";

const STRICT_UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
/** JSON has no infinity; OpenAI's own answers use this number for "impossible". */
const IMPOSSIBLE = -9999;

export function chatLogprobs(tokens: readonly TextToken[]): ChatLogprobs {
  return {
    content: tokens.map(({ bytes, logprob, top }) => ({
      token: tokenText(bytes, ""),
      logprob: finite(logprob ?? 0),
      bytes: [...bytes],
      top_logprobs: top.map((alternative) => ({
        token: tokenText(alternative.bytes, ""),
        logprob: finite(alternative.logprob),
        bytes: [...alternative.bytes],
      })),
    })),
    refusal: null,
  };
}

/** The alternatives always include the chosen token, so that it can be found among them. */
export function completionLogprobs(tokens: readonly TextToken[]): CompletionLogprobs {
  return {
    tokens: tokens.map(({ bytes }) => tokenText(bytes, "bytes:")),
    token_logprobs: tokens.map(({ logprob }) => (logprob === null ? null : finite(logprob))),
    top_logprobs: tokens.map(alternativesOf),
    text_offset: tokens.map(({ offset }) => offset),
  };
}

function alternativesOf({ bytes, logprob, top }: TextToken): Record<string, number> | null {
  if (logprob === null) return null;
  const entries = top.map((alternative): [string, number] => [
    tokenText(alternative.bytes, "bytes:"),
    finite(alternative.logprob),
  ]);
  // Two tokens may have the same text: the first and likelier one keeps the name.
  return Object.fromEntries(
    [...entries, [tokenText(bytes, "bytes:"), finite(logprob)] as [string, number]].reverse(),
  );
}

/** The token's text; where its bytes are only part of a character, the bytes written as `\xf0\x9f`. */
function tokenText(bytes: Uint8Array, prefix: string): string {
  try {
    return STRICT_UTF8.decode(bytes);
  } catch {
    return prefix + Array.from(bytes, (byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  }
}

function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : IMPOSSIBLE;
}
