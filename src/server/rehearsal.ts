/**
 * A prompt before the first: while a model's engine loads, one is rendered and encoded, so that the first request
 * finds compiled code and the tables that template and tokenizer make when they are first used.
 */

import { MistralError } from "../errors.ts";
import type { ChatTemplate } from "../text/types.ts";
import type { ServedModel } from "./served-model.ts";

const MESSAGES = [{ role: "user", content: "Hello, who are you?" }] as const;

export function rehearse({ tokenizer, chatTemplate }: Pick<ServedModel, "tokenizer" | "chatTemplate">): void {
  const prompt = chatTemplate === undefined ? MESSAGES[0].content : rendered(chatTemplate);
  tokenizer.encode(prompt, { addSpecialTokens: true });
}

/** A template may refuse a conversation this plain; the question alone does then. */
function rendered(template: ChatTemplate): string {
  try {
    return template.render({ messages: MESSAGES, variables: {}, addGenerationPrompt: true });
  } catch (error) {
    if (error instanceof MistralError) return MESSAGES[0].content;
    throw error;
  }
}
