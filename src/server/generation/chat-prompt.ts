/** From a conversation to the prompt of a text request: every dialect's messages go through the chat template here. */

import { MistralError } from "../../errors.ts";
import { reasoningFormatOf } from "../../text/reasoning.ts";
import type { ChatMessage, ChatTemplate } from "../../text/types.ts";
import { encodePrompt } from "../prompt-tokens.ts";
import type { ServedModel } from "../served-model.ts";
import type { TextRequest } from "./request.ts";

export interface Conversation {
  readonly messages: readonly ChatMessage[];
  /** Further variables of the template. */
  readonly variables: Readonly<Record<string, unknown>>;
  /** The last message is the beginning of the answer, which goes on from it. */
  readonly continueLast?: boolean;
}

/** Throws invalid_request for a model without a chat template and for a conversation that the template refuses. */
export function chatPrompt(
  model: ServedModel,
  conversation: Conversation,
): Pick<TextRequest, "prompts" | "promptField" | "continues" | "reasoning"> {
  const template = templateOf(model);
  const continues = conversation.continueLast === true;
  const prompt = continues
    ? renderContinued(template, conversation)
    : template.render({ ...conversation, addGenerationPrompt: true });
  const tokens = encodePrompt(model, prompt, "messages");
  const format = reasoningFormatOf(template.source);
  return {
    prompts: [{ tokens, text: prompt }],
    promptField: "messages",
    continues,
    reasoning: format === undefined ? undefined : { format, prompt },
  };
}

export function templateOf(model: ServedModel): ChatTemplate {
  if (model.chatTemplate !== undefined) return model.chatTemplate;
  throw new MistralError(
    "invalid_request",
    `The model "${model.id}" has no chat template; use /v1/completions instead.`,
    { parameter: "model" },
  );
}

/** The conversation up to the end of its last message, which stays open. */
function renderContinued(template: ChatTemplate, { messages, variables }: Conversation): string {
  const content = messages.at(-1)?.content;
  const begun = typeof content === "string" ? content.trim() : "";
  const rendered = template.render({ messages, variables, addGenerationPrompt: false });
  const at = begun === "" ? -1 : rendered.lastIndexOf(begun);
  if (at >= 0) return rendered.slice(0, at + begun.length);
  throw new MistralError(
    "invalid_request",
    "The last message cannot be gone on from: it is empty, or this model's chat template changes it. End with a message of the user.",
    { parameter: `messages[${messages.length - 1}].content` },
  );
}
