/** From the body of a message request to the native text request. */

import { MistralError } from "../../errors.ts";
import type { ChatMessage } from "../../text/types.ts";
import { chatPrompt, templateOf } from "../generation/chat-prompt.ts";
import type { TextRequest } from "../generation/request.ts";
import { hearsThinking, type ThinkingWish, thinkingVariables } from "../generation/thinking.ts";
import { truncatePrompts } from "../generation/truncate.ts";
import { printable } from "../openai/parameters.ts";
import { samplingOverrides } from "../openai/sampling-parameters.ts";
import type { ServedModel } from "../served-model.ts";
import type { ContentBlock, CountBody, MessageBody } from "./message-parameters.ts";

export function messageTextRequest(body: MessageBody, model: ServedModel): TextRequest {
  const { service_tier: _tier, ...sampling } = body;
  const request: TextRequest = {
    ...promptOf(body, model),
    n: 1,
    maxTokens: body.max_tokens,
    stop: body.stop_sequences ?? [],
    ignoreEos: body.ignore_eos ?? false,
    sampling: samplingOverrides(sampling),
    logprobs: -1,
    echo: false,
    cacheSalt: body.cache_salt ?? undefined,
  };
  return body.truncate_sequence === true ? truncatePrompts(request, model) : request;
}

/** How many tokens the prompt of such a message has. */
export function countPromptTokens(body: CountBody, model: ServedModel): number {
  return promptOf(body, model).prompts[0]!.tokens.length;
}

/** What of the nested fields can do nothing with this model, one sentence each. */
export function unusedFields(body: CountBody, model: ServedModel): readonly string[] {
  const source = model.chatTemplate?.source ?? "";
  const heard = hearsThinking(source);
  const unused: string[] = [];
  const { thinking, output_config: output, chat_template_kwargs: variables } = body;
  if (thinking && !heard.enabled) unused.push("thinking");
  if (output?.effort && !heard.effort) unused.push("output_config.effort");
  for (const key of Object.keys(variables ?? {})) {
    if (!source.includes(key)) unused.push(`chat_template_kwargs.${printable(key)}`);
  }
  const warnings = unused.map(
    (field) => `parameter '${field}' has no effect with this model's chat template`,
  );
  if (thinking && "budget_tokens" in thinking) {
    warnings.push("parameter 'thinking.budget_tokens' has no effect here");
  }
  return warnings;
}

function promptOf(body: CountBody, model: ServedModel) {
  const { source } = templateOf(model);
  const messages = conversationOf(body);
  const last = messages.at(-1)!;
  const continueLast = last.role === "assistant";
  if (continueLast && /\s$/.test(String(last.content))) {
    throw invalid(
      "The last message is of the assistant and is gone on from; it must not end in white space.",
      `messages[${body.messages.length - 1}].content`,
    );
  }
  const variables = { ...body.chat_template_kwargs, ...thinkingVariables(wishOf(body), source) };
  return chatPrompt(model, { messages, variables, continueLast });
}

function wishOf({ thinking, output_config: output }: CountBody): ThinkingWish {
  return {
    enabled: thinking ? thinking.type !== "disabled" : undefined,
    // Anthropic's effort is also about answers without thoughts, so it never contradicts switching them off.
    effort: thinking?.type === "disabled" ? undefined : (output?.effort ?? undefined),
  };
}

/** The messages as templates expect them: one system text in front, and no two neighbours of one role. */
function conversationOf(body: CountBody): readonly ChatMessage[] {
  const messages: ChatMessage[] = [];
  if (body.system !== null && body.system !== undefined) {
    const content = textOf(body.system, "system");
    if (content !== "") messages.push({ role: "system", content });
  }
  for (const [index, { role, content }] of body.messages.entries()) {
    const field = `messages[${index}].content`;
    const text = textOf(content, field);
    const thought = role === "assistant" ? thoughtOf(content) : "";
    const before = messages.at(-1);
    if (before?.role === role) messages[messages.length - 1] = join(before, text, thought);
    else messages.push(message(role, text, thought));
  }
  if (!messages.some(({ role }) => role !== "system")) {
    throw invalid("The conversation has no message of the user.", "messages");
  }
  return messages;
}

function message(role: string, content: string, thought: string): ChatMessage {
  return thought === "" ? { role, content } : { role, content, reasoning_content: thought };
}

function join(before: ChatMessage, text: string, thought: string): ChatMessage {
  const both = (first: unknown, second: string) =>
    [String(first ?? ""), second].filter((part) => part !== "").join("\n");
  return message(before.role, both(before.content, text), both(before.reasoning_content, thought));
}

function textOf(content: string | readonly ContentBlock[], field: string): string {
  if (typeof content === "string") return content;
  return content.flatMap((block, position) => blockText(block, `${field}[${position}]`) ?? []).join("\n");
}

/** The text of a block; undefined for one that says nothing. Throws for what no text model can take. */
function blockText(block: ContentBlock, field: string): string | undefined {
  switch (block.type) {
    case "text":
      if (block.text === undefined)
        throw invalid(`Missing required parameter: '${field}.text'.`, `${field}.text`);
      return block.text;
    // A redacted thought is sealed for whoever made it.
    case "thinking":
    case "redacted_thinking":
      return undefined;
    case "tool_use":
    case "tool_result":
      throw invalid(`'${field}.type' is "${block.type}"; tool use is not built yet.`, `${field}.type`);
    default:
      throw invalid(
        `'${field}.type' is "${block.type.slice(0, 40)}"; this model takes text blocks only.`,
        `${field}.type`,
      );
  }
}

function thoughtOf(content: string | readonly ContentBlock[]): string {
  if (typeof content === "string") return "";
  return content.flatMap(({ type, thinking }) => (type === "thinking" ? (thinking ?? []) : [])).join("\n");
}

function invalid(text: string, parameter: string): MistralError {
  return new MistralError("invalid_request", text, { parameter });
}
