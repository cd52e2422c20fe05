/** From the body of a chat request to the native text request: messages through the chat template to tokens. */

import { MistralError } from "../../errors.ts";
import type { ChatMessage, ChatTemplate } from "../../text/types.ts";
import { chatPrompt, templateOf } from "../generation/chat-prompt.ts";
import type { TextRequest } from "../generation/request.ts";
import { hearsThinking, thinkingVariables } from "../generation/thinking.ts";
import { truncatePrompts } from "../generation/truncate.ts";
import type { ServedModel } from "../served-model.ts";
import type { ChatBody, ChatBodyMessage } from "./chat-parameters.ts";
import { printable } from "./parameters.ts";
import { priority, samplingOverrides, stopStrings } from "./sampling-parameters.ts";

export function chatTextRequest(body: ChatBody, model: ServedModel): TextRequest {
  const { source } = templateOf(model);
  const knowsDeveloper = source.includes("developer");
  const messages = body.messages.map((message, index) => templateMessage(message, index, knowsDeveloper));
  const request: TextRequest = {
    ...chatPrompt(model, { messages, variables: templateVariables(body, source) }),
    n: body.n ?? 1,
    maxTokens: maxTokens(body),
    stop: stopStrings(body),
    ignoreEos: body.ignore_eos ?? false,
    sampling: samplingOverrides(body),
    logprobs: logprobCount(body),
    echo: false,
    priority: priority(body),
    cacheSalt: body.cache_salt ?? undefined,
  };
  return body.truncate_sequence === true ? truncatePrompts(request, model) : request;
}

function templateVariables(body: ChatBody, source: string): Readonly<Record<string, unknown>> {
  const enabled = body.enable_thinking ?? undefined;
  const effort = body.reasoning_effort ?? undefined;
  return { ...body.chat_template_kwargs, ...thinkingVariables({ enabled, effort }, source) };
}

/** Variables for the template which it never mentions, and which can therefore do nothing. */
export function unusedTemplateFields(body: ChatBody, template: ChatTemplate | undefined): readonly string[] {
  if (template === undefined) return [];
  const { source } = template;
  const heard = hearsThinking(source);
  const unused = Object.keys(body.chat_template_kwargs ?? {})
    .filter((key) => !source.includes(key))
    .map((key) => `chat_template_kwargs.${printable(key)}`);
  if ((body.enable_thinking ?? null) !== null && !heard.enabled) unused.push("enable_thinking");
  if ((body.reasoning_effort ?? null) !== null && !heard.effort) unused.push("reasoning_effort");
  return unused.map((field) => `parameter '${field}' has no effect with this model's chat template`);
}

/** A message as templates expect it: the content one string, and no role that this template has never heard of. */
function templateMessage(message: ChatBodyMessage, index: number, knowsDeveloper: boolean): ChatMessage {
  const role = message.role === "developer" && !knowsDeveloper ? "system" : message.role;
  const { reasoning, ...fields } = message;
  const thought = message.reasoning_content ?? reasoning ?? undefined;
  return {
    ...fields,
    ...(thought === undefined ? {} : { reasoning_content: thought }),
    role,
    content: contentText(message, `messages[${index}]`),
  };
}

function contentText(message: ChatBodyMessage, field: string): string {
  const { content } = message;
  if (typeof content === "string") return content;
  if (content === null || content === undefined) {
    if (message.role === "assistant") return "";
    throw invalid(
      `Missing required parameter: '${field}.content'; only an assistant's message may go without.`,
      `${field}.content`,
    );
  }
  return content
    .map((part, position) => {
      const name = `${field}.content[${position}]`;
      if (part.type !== "text") {
        throw invalid(
          `'${name}.type' is "${part.type.slice(0, 40)}"; this model takes text parts only.`,
          `${name}.type`,
        );
      }
      if (part.text === undefined)
        throw invalid(`Missing required parameter: '${name}.text'.`, `${name}.text`);
      return part.text;
    })
    .join("\n");
}

function maxTokens(body: ChatBody): number | undefined {
  const older = body.max_tokens ?? undefined;
  const newer = body.max_completion_tokens ?? undefined;
  if (older !== undefined && newer !== undefined && older !== newer) {
    throw invalid(
      `max_tokens (${older}) and max_completion_tokens (${newer}) are names of one limit and differ; send one.`,
      "max_tokens",
    );
  }
  return newer ?? older;
}

function logprobCount(body: ChatBody): number {
  if (body.logprobs === true) return body.top_logprobs ?? 0;
  if ((body.top_logprobs ?? 0) > 0) {
    throw invalid("top_logprobs is only allowed when logprobs is true.", "top_logprobs");
  }
  return -1;
}

function invalid(message: string, parameter: string): MistralError {
  return new MistralError("invalid_request", message, { parameter });
}
