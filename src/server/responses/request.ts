/** From the body of a response request to the messages of its conversation and the native text request. */

import { MistralError } from "../../errors.ts";
import type { ChatMessage } from "../../text/types.ts";
import type { TextRequest } from "../generation/request.ts";
import { LIMITS } from "../limits.ts";
import type { ChatBody } from "../openai/chat-parameters.ts";
import { chatTextRequest } from "../openai/chat-request.ts";
import type { ServedModel } from "../served-model.ts";
import { newId, type ResponseFrame } from "./event-writer.ts";
import { INCLUDE_LOGPROBS, type InputItem, type ResponseCreateBody } from "./parameters.ts";
import type { Conversation } from "./run.ts";

/** What the body adds to the conversation; its instructions are for this one response and not among it. */
export function conversationOf(body: ResponseCreateBody, before: Conversation | undefined): Conversation {
  const { input } = body;
  if (typeof input === "string") return { before, messages: [{ role: "user", content: input }] };
  const messages = input.flatMap((item, index) => messagesOf(item, `input[${index}]`));
  if (messages.length === 0) throw invalid("The input holds no message.", "input");
  return { before, messages };
}

/** The prompt of the conversation, with the body's own wishes about the answer. */
export function responseTextRequest(
  body: ResponseCreateBody,
  conversation: Conversation,
  model: ServedModel,
): TextRequest {
  const chat: ChatBody = {
    ...sharedFields(body),
    messages: allMessages(conversation, body.instructions ?? undefined) as ChatBody["messages"],
    max_completion_tokens: body.max_output_tokens ?? null,
    logprobs: wantsLogprobs(body),
    top_logprobs: wantsLogprobs(body) ? (body.top_logprobs ?? null) : null,
    enable_thinking: body.enable_thinking ?? null,
    reasoning_effort: body.reasoning?.effort ?? null,
    chat_template_kwargs: body.chat_template_kwargs ?? null,
  };
  return { ...chatTextRequest(chat, model), promptField: "input" };
}

/** The fields that mean the same here and in a chat request. */
function sharedFields(body: ResponseCreateBody): Partial<ChatBody> {
  const {
    input: _input,
    include: _include,
    text: _text,
    metadata: _metadata,
    stream: _stream,
    stream_options: _streamOptions,
    tools: _tools,
    tool_choice: _toolChoice,
    truncation: _truncation,
    ...shared
  } = body;
  return shared as Partial<ChatBody>;
}

/** What the answer repeats of the request. */
export function responseFrame(
  body: ResponseCreateBody,
  text: TextRequest,
  model: ServedModel,
): ResponseFrame {
  return {
    id: newId("resp"),
    object: "response",
    created_at: Math.floor(Date.now() / 1000),
    background: body.background ?? false,
    instructions: body.instructions ?? null,
    max_output_tokens: text.maxTokens ?? null,
    max_tool_calls: null,
    model: model.id,
    parallel_tool_calls: false,
    previous_response_id: body.previous_response_id ?? null,
    reasoning: { effort: body.reasoning?.effort ?? null, summary: null },
    service_tier: body.service_tier ?? "default",
    store: body.store ?? true,
    temperature: text.sampling.temperature ?? model.generationDefaults.temperature ?? 1,
    text: { format: { type: "text" } },
    tool_choice: "auto",
    tools: [],
    top_logprobs: Math.max(0, text.logprobs),
    top_p: text.sampling.topP ?? model.generationDefaults.topP ?? 1,
    truncation: "disabled",
    user: null,
    metadata: body.metadata ?? {},
  };
}

/** Throws for combinations of fields that cannot be. */
export function checkCombinations(body: ResponseCreateBody): void {
  if (body.background === true && body.store === false) {
    throw invalid("A background response is fetched by its id, so it cannot have store: false.", "store");
  }
  if ((body.top_logprobs ?? 0) > 0 && !wantsLogprobs(body)) {
    throw invalid(`top_logprobs needs "${INCLUDE_LOGPROBS}" in include.`, "top_logprobs");
  }
  if (body.stream !== true && (body.stream_options ?? null) !== null) {
    throw invalid("stream_options is only allowed when stream is true.", "stream_options");
  }
}

/** Values of `include` that change nothing here. */
export function unusedIncludes(body: ResponseCreateBody): readonly string[] {
  return (body.include ?? [])
    .filter((value) => value !== INCLUDE_LOGPROBS)
    .map((value) => `include '${value.replace(/[^\x20-\x7e]/g, "?").slice(0, 64)}' has no effect here`);
}

function wantsLogprobs(body: ResponseCreateBody): boolean {
  return body.include?.includes(INCLUDE_LOGPROBS) ?? false;
}

function allMessages(conversation: Conversation, instructions: string | undefined): ChatMessage[] {
  const turns: (readonly ChatMessage[])[] = [];
  for (let turn: Conversation | undefined = conversation; turn !== undefined; turn = turn.before)
    turns.unshift(turn.messages);
  const messages = turns.flat();
  if (instructions !== undefined) messages.unshift({ role: "system", content: instructions });
  if (messages.length <= LIMITS.messages) return messages;
  throw invalid(
    `The conversation has ${messages.length} messages; the limit is ${LIMITS.messages}.`,
    "previous_response_id",
  );
}

function messagesOf(item: InputItem, field: string): readonly ChatMessage[] {
  switch (item.type ?? "message") {
    case "message":
      if (item.role === undefined)
        throw invalid(`Missing required parameter: '${field}.role'.`, `${field}.role`);
      return [{ role: item.role, content: textOf(item.content, `${field}.content`) }];
    case "function_call":
      return [{ role: "assistant", content: "", tool_calls: [toolCallOf(item, field)] }];
    case "function_call_output":
      return [
        {
          role: "tool",
          tool_call_id: required(item.call_id, `${field}.call_id`),
          content: textOf(item.output, `${field}.output`),
        },
      ];
    case "reasoning":
      return []; // what a model thought in earlier turns is not shown to it again
    case "item_reference":
      throw invalid(
        `'${field}' refers to an item by its id; send the item itself, or continue with previous_response_id.`,
        `${field}.type`,
      );
    default:
      throw invalid(
        `'${field}.type' is "${String(item.type).slice(0, 40)}"; message, function_call, function_call_output and reasoning are known.`,
        `${field}.type`,
      );
  }
}

function toolCallOf(item: InputItem, field: string): Record<string, unknown> {
  return {
    id: required(item.call_id, `${field}.call_id`),
    type: "function",
    function: {
      name: required(item.name, `${field}.name`),
      arguments: required(item.arguments, `${field}.arguments`),
    },
  };
}

function textOf(content: InputItem["content"] | InputItem["output"], field: string): string {
  if (typeof content === "string") return content;
  if (content === null || content === undefined)
    throw invalid(`Missing required parameter: '${field}'.`, field);
  return content
    .map((part, position) => {
      const name = `${field}[${position}]`;
      if (part.type !== "input_text" && part.type !== "output_text" && part.type !== "text") {
        throw invalid(
          `'${name}.type' is "${part.type.slice(0, 40)}"; this model takes text parts only.`,
          `${name}.type`,
        );
      }
      return required(part.text, `${name}.text`);
    })
    .join("\n");
}

function required(value: string | undefined, field: string): string {
  if (value === undefined) throw invalid(`Missing required parameter: '${field}'.`, field);
  return value;
}

function invalid(message: string, parameter: string): MistralError {
  return new MistralError("invalid_request", message, { parameter });
}
