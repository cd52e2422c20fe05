/** From a conversation to the tokens of a prompt. */

import type { ChatTemplate, ChatTemplateInput, Tokenizer } from "./types.ts";

/**
 * Renders the conversation and encodes it with the model's special tokens. A BOS that the template wrote is not
 * doubled. Throws what the template throws.
 */
export function buildChatPrompt(
  template: ChatTemplate,
  tokenizer: Tokenizer,
  input: ChatTemplateInput,
): { readonly text: string; readonly tokens: number[] } {
  const text = template.render(input);
  return { text, tokens: tokenizer.encode(text, { addSpecialTokens: true }) };
}
