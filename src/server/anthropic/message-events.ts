/** A message on the wire: the events of a stream, and the whole message as the fold of them. */

import type { TextEvent, TextUsage } from "../generation/request.ts";
import { namedEvent } from "../sse.ts";
import type { ContentBlock, DeltaUsage, Message, MessageEvent, StopReason } from "./shapes.ts";

export interface MessageHead {
  readonly id: string;
  readonly model: string;
  readonly promptTokens: number;
  /** The context ends before as many tokens as were asked for. */
  readonly contextLimited: boolean;
  /** Thoughts are made but not told. */
  readonly hidesThinking: boolean;
}

export function messageId(): string {
  return `msg_${crypto.randomUUID().replaceAll("-", "")}`;
}

/** What fills a silence. */
export const PING_EVENT = namedEvent("ping", JSON.stringify({ type: "ping" }));

/** The server-sent events of a message; one string per batch of engine events. */
export async function* messageStream(
  head: MessageHead,
  source: AsyncIterable<readonly TextEvent[]>,
): AsyncGenerator<string, void, undefined> {
  for await (const batch of messageEvents(head, source)) {
    yield batch.map((event) => namedEvent(event.type, JSON.stringify(event))).join("");
  }
}

/** The whole message. Throws what the source throws, and an Error when it ends before its last event. */
export async function wholeMessage(
  head: MessageHead,
  source: AsyncIterable<readonly TextEvent[]>,
): Promise<Message> {
  let message: Message | undefined;
  for await (const batch of messageEvents(head, source)) {
    for (const event of batch) message = fold(message, event);
  }
  if (message === undefined || message.stop_reason === null)
    throw new Error("the stream ended before its last event");
  return message;
}

function fold(message: Message | undefined, event: MessageEvent): Message {
  if (event.type === "message_start") return event.message;
  if (message === undefined) throw new Error(`${event.type} came before the message`);
  switch (event.type) {
    case "content_block_start":
      message.content.push({ ...event.content_block });
      break;
    case "content_block_delta":
      extend(message.content[event.index], event.delta);
      break;
    case "message_delta":
      message.stop_reason = event.delta.stop_reason;
      message.stop_sequence = event.delta.stop_sequence;
      Object.assign(message.usage, event.usage);
      break;
    case "ping":
    case "content_block_stop":
    case "message_stop":
      break;
    default:
      event satisfies never;
  }
  return message;
}

type Delta = Extract<MessageEvent, { type: "content_block_delta" }>["delta"];

function extend(block: ContentBlock | undefined, delta: Delta): void {
  if (block?.type === "text" && delta.type === "text_delta") block.text += delta.text;
  else if (block?.type === "thinking" && delta.type === "thinking_delta") block.thinking += delta.thinking;
  else throw new Error(`a ${delta.type} does not belong to a block of type ${block?.type}`);
}

/** One start, blocks one after the other, one delta of the message, one stop. */
async function* messageEvents(
  head: MessageHead,
  source: AsyncIterable<readonly TextEvent[]>,
): AsyncGenerator<readonly MessageEvent[], void, undefined> {
  const writer = new MessageWriter(head);
  writer.begin();
  yield writer.take();
  for await (const batch of source) {
    for (const event of batch) writer.push(event);
    const events = writer.take();
    if (events.length > 0) yield events;
  }
}

class MessageWriter {
  readonly #head: MessageHead;
  #events: MessageEvent[] = [];
  #open: ContentBlock["type"] | undefined;
  #blocks = 0;
  #end: Extract<TextEvent, { type: "finish" }> | undefined;

  constructor(head: MessageHead) {
    this.#head = head;
  }

  /** The events since the last call. */
  take(): readonly MessageEvent[] {
    const events = this.#events;
    this.#events = [];
    return events;
  }

  begin(): void {
    const { id, model, promptTokens } = this.#head;
    const nothing = { promptTokens, completionTokens: 0, cachedTokens: 0, reasoningTokens: 0 };
    this.#events.push({
      type: "message_start",
      message: {
        id,
        type: "message",
        role: "assistant",
        model,
        content: [],
        stop_reason: null,
        stop_sequence: null,
        stop_details: null,
        container: null,
        diagnostics: null,
        usage: {
          ...usageOf(nothing),
          cache_creation: null,
          inference_geo: null,
          service_tier: "standard",
          speed: null,
        },
      },
    });
  }

  push(event: TextEvent): void {
    switch (event.type) {
      case "prompt":
        return; // messages never echo
      case "reasoning": {
        const index = this.#openBlock("thinking");
        if (this.#head.hidesThinking) return;
        const delta = { type: "thinking_delta" as const, thinking: event.text };
        this.#events.push({ type: "content_block_delta", index, delta });
        return;
      }
      case "text": {
        if (event.text === "") return;
        const index = this.#openBlock("text");
        const delta = { type: "text_delta" as const, text: event.text };
        this.#events.push({ type: "content_block_delta", index, delta });
        return;
      }
      case "finish":
        this.#end = event;
        return;
      case "usage":
        this.#finish(event.usage);
        return;
      default:
        event satisfies never;
    }
  }

  /** Returns the index of the block. */
  #openBlock(type: ContentBlock["type"]): number {
    if (this.#open === type) return this.#blocks - 1;
    this.#closeBlock();
    const index = this.#blocks;
    this.#blocks += 1;
    this.#open = type;
    const block: ContentBlock =
      type === "text" ? { type, text: "", citations: null } : { type, thinking: "", signature: "" };
    this.#events.push({ type: "content_block_start", index, content_block: block });
    if (index === 0) this.#events.push({ type: "ping" });
    return index;
  }

  #closeBlock(): void {
    if (this.#open === undefined) return;
    this.#open = undefined;
    this.#events.push({ type: "content_block_stop", index: this.#blocks - 1 });
  }

  #finish(usage: TextUsage): void {
    const end = this.#end;
    if (end === undefined) throw new Error("the answer ended without a reason");
    this.#closeBlock();
    const delta = {
      stop_reason: this.#stopReason(end),
      stop_sequence: end.stopString,
      stop_details: null,
      container: null,
    };
    this.#events.push({ type: "message_delta", delta, usage: usageOf(usage) }, { type: "message_stop" });
  }

  #stopReason({ reason, stopString }: Extract<TextEvent, { type: "finish" }>): StopReason {
    switch (reason) {
      case "stop":
        return stopString === null ? "end_turn" : "stop_sequence";
      case "length":
        return this.#head.contextLimited ? "model_context_window_exceeded" : "max_tokens";
    }
  }
}

function usageOf({ promptTokens, cachedTokens, completionTokens, reasoningTokens }: TextUsage): DeltaUsage {
  return {
    input_tokens: promptTokens - cachedTokens,
    cache_creation_input_tokens: 0,
    cache_read_input_tokens: cachedTokens,
    output_tokens: completionTokens,
    output_tokens_details: { thinking_tokens: reasoningTokens },
    server_tool_use: null,
  };
}
