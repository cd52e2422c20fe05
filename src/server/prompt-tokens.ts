/** Prompts to tokens, within bounds: a text that no context could hold is refused before a tokenizer spends seconds on it. */

import { MistralError } from "../errors.ts";
import type { Tokenizer } from "../text/types.ts";
import { tokenCapacity } from "./generation/plan.ts";
import type { ServedModel } from "./served-model.ts";

const longestTokens = new WeakMap<Tokenizer, number>();

/**
 * The tokens of a prompt, with those that begin every text of this model. Throws context_length_exceeded for a text
 * of which even the longest tokens would be too many; how many tokens it has is then not known.
 * @param field what the dialect calls the prompt
 */
export function encodePrompt(model: ServedModel, text: string, field: string): Int32Array {
  const capacity = tokenCapacity(model.engine.info);
  // No token stands for less than a character, so that most texts are short enough at sight.
  if (text.length > capacity && text.length > promptCharactersMax(model)) {
    throw new MistralError(
      "context_length_exceeded",
      `The prompt has ${text.length} characters, more than ${capacity} tokens can stand for; this model holds ${capacity} for prompt and answer together. Shorten the prompt.`,
      { parameter: field },
    );
  }
  return Int32Array.from(model.tokenizer.encode(text, { addSpecialTokens: true }));
}

/** Most characters that the tokens which this model holds can stand for. */
export function promptCharactersMax({ engine, tokenizer }: ServedModel): number {
  return tokenCapacity(engine.info) * longestToken(tokenizer);
}

/** Bytes of the longest token: no token stands for more characters. Looks at all of them the first time, which takes milliseconds. */
function longestToken(tokenizer: Tokenizer): number {
  const known = longestTokens.get(tokenizer);
  if (known !== undefined) return known;
  let longest = 1;
  for (let token = 0; token < tokenizer.vocabularySize; token += 1)
    longest = Math.max(longest, tokenizer.tokenBytes(token).length);
  longestTokens.set(tokenizer, longest);
  return longest;
}
