/** Prompts cut to what the model holds, for requests that ask for it. Nothing is ever cut otherwise. */

import type { ServedModel } from "../served-model.ts";
import { tokenCapacity } from "./plan.ts";
import type { TextPrompt, TextRequest } from "./request.ts";

/**
 * The request with prompts that leave room for `maxTokens` tokens, or one when that is not given. What is dropped is
 * the oldest part; a token that begins every text of this model is kept in front.
 */
export function truncatePrompts(request: TextRequest, model: ServedModel): TextRequest {
  const lengthMax = Math.max(1, tokenCapacity(model.engine.info) - (request.maxTokens ?? 1));
  const { bosToken } = model.tokenizer;
  const prompts = request.prompts.map((prompt) => keepEnd(prompt, lengthMax, bosToken));
  const droppedTokens = prompts.reduce(
    (total, { tokens }, index) => total + request.prompts[index]!.tokens.length - tokens.length,
    0,
  );
  return { ...request, prompts, droppedTokens };
}

/** What a client is told that got less than it sent. */
export function truncationWarnings({ droppedTokens = 0 }: TextRequest): readonly string[] {
  if (droppedTokens === 0) return [];
  return [`truncate_sequence dropped the oldest ${droppedTokens} tokens of the prompt`];
}

function keepEnd(prompt: TextPrompt, lengthMax: number, bosToken: number | undefined): TextPrompt {
  const { tokens } = prompt;
  if (tokens.length <= lengthMax) return prompt;
  const kept = tokens.slice(tokens.length - lengthMax);
  if (bosToken !== undefined && tokens[0] === bosToken && lengthMax > 1) kept[0] = bosToken;
  return { tokens: kept, text: undefined };
}
