/**
 * The one state machine of a response: text events in, the response's own events out, and at any time the response
 * as it stands. Whole answers, streams and stored responses are all what this has written. Ids are made once;
 * sequence numbers count every event; the last event is one of completed, incomplete or failed.
 */

import type { Failure } from "../failure.ts";
import type { TextEvent, TextFinishReason, TextUsage } from "../generation/request.ts";
import { chatLogprobs } from "../openai/logprobs.ts";
import type {
  ItemStatus,
  MessageItem,
  OutputItem,
  OutputText,
  ReasoningItem,
  ReasoningText,
  ResponseBody,
  ResponseStreamEvent,
} from "./shapes.ts";

/** What stays the same from the first event to the last. */
export type ResponseFrame = Omit<
  ResponseBody,
  "status" | "completed_at" | "error" | "incomplete_details" | "output" | "output_text" | "usage"
>;

/** An event before it has its number. */
type Unnumbered = ResponseStreamEvent extends infer Event
  ? Event extends ResponseStreamEvent
    ? Omit<Event, "sequence_number">
    : never
  : never;

type Part = OutputText | ReasoningText;

interface OpenItem {
  readonly item: OutputItem;
  readonly part: Part;
  readonly index: number;
}

export class ResponseWriter {
  readonly #frame: ResponseFrame;
  readonly #emit: (event: ResponseStreamEvent) => void;
  readonly #output: OutputItem[] = [];
  #sequence = 0;
  #open: OpenItem | undefined;
  #status: ResponseBody["status"];
  #finishReason: TextFinishReason | undefined;
  #usage: TextUsage | undefined;
  #failure: Failure | undefined;
  #completedAt: number | null = null;

  constructor(frame: ResponseFrame, emit: (event: ResponseStreamEvent) => void) {
    this.#frame = frame;
    this.#emit = emit;
    this.#status = frame.background ? "queued" : "in_progress";
  }

  get over(): boolean {
    return this.#status !== "queued" && this.#status !== "in_progress";
  }

  /** The response as it stands. */
  get body(): ResponseBody {
    const usage = this.#usage;
    return {
      ...this.#frame,
      status: this.#status,
      completed_at: this.#completedAt,
      error: this.#failure === undefined ? null : errorOf(this.#failure),
      incomplete_details: this.#status === "incomplete" ? { reason: "max_output_tokens" } : null,
      output: structuredClone(this.#output),
      output_text: outputText(this.#output),
      usage:
        usage === undefined
          ? null
          : {
              input_tokens: usage.promptTokens,
              input_tokens_details: { cached_tokens: usage.cachedTokens },
              output_tokens: usage.completionTokens,
              output_tokens_details: { reasoning_tokens: usage.reasoningTokens },
              total_tokens: usage.promptTokens + usage.completionTokens,
            },
    };
  }

  /** The opening events; called once, before all others. */
  begin(): void {
    this.#write({ type: "response.created", response: this.body });
    if (this.#status === "queued") this.#write({ type: "response.queued", response: this.body });
  }

  /** The engine has the request now. */
  started(): void {
    this.#status = "in_progress";
    this.#write({ type: "response.in_progress", response: this.body });
  }

  push(event: TextEvent): void {
    if (this.over) return;
    switch (event.type) {
      case "prompt":
        return; // responses never echo
      case "text":
        this.#text(event.text, event.tokens.length === 0 ? [] : chatLogprobs(event.tokens).content);
        return;
      case "reasoning":
        this.#thought(event.text);
        return;
      case "finish":
        this.#finishReason = event.reason;
        return;
      case "usage":
        this.#usage = event.usage;
        return;
      default:
        event satisfies never;
    }
  }

  /** All text has come: the response is completed, or incomplete where a limit cut it. */
  finish(): void {
    if (this.over) return;
    const cut = this.#finishReason === "length";
    // An answer without a single character is a message all the same.
    if (!this.#output.some(({ type }) => type === "message")) this.#openItem("message");
    this.#closeItem(cut ? "incomplete" : "completed");
    this.#end(cut ? "incomplete" : "completed");
  }

  /** Somebody stopped it. What was said until then stays. */
  cancel(): void {
    if (this.over) return;
    this.#closeItem("incomplete");
    this.#end("cancelled");
  }

  fail(failure: Failure): void {
    if (this.over) return;
    this.#failure = failure;
    this.#closeItem("incomplete");
    const { code, message, parameter } = failure;
    this.#write({ type: "error", code, message, param: parameter });
    this.#end("failed");
  }

  #text(text: string, logprobs: OutputText["logprobs"]): void {
    const { item, part, index } = this.#openItem("message");
    if (part.type !== "output_text") return;
    part.text += text;
    part.logprobs.push(...logprobs);
    this.#write({
      type: "response.output_text.delta",
      item_id: item.id,
      output_index: index,
      content_index: 0,
      delta: text,
      logprobs,
    });
  }

  #thought(text: string): void {
    const { item, part, index } = this.#openItem("reasoning");
    part.text += text;
    this.#write({
      type: "response.reasoning_text.delta",
      item_id: item.id,
      output_index: index,
      content_index: 0,
      delta: text,
    });
  }

  /** The item of this kind that is being written; begun, after ending another, when there is none. */
  #openItem(kind: OutputItem["type"]): OpenItem {
    if (this.#open?.item.type === kind) return this.#open;
    this.#closeItem("completed");
    const index = this.#output.length;
    const item = newItem(kind);
    this.#output.push(item);
    this.#write({ type: "response.output_item.added", output_index: index, item: structuredClone(item) });
    const part = newPart(item);
    this.#write({
      type: "response.content_part.added",
      item_id: item.id,
      output_index: index,
      content_index: 0,
      part: structuredClone(part),
    });
    this.#open = { item, part, index };
    return this.#open;
  }

  #closeItem(status: ItemStatus): void {
    const open = this.#open;
    if (open === undefined) return;
    this.#open = undefined;
    const { item, part, index } = open;
    const place = { item_id: item.id, output_index: index, content_index: 0 };
    if (part.type === "output_text") {
      const { text, logprobs } = part;
      this.#write({ type: "response.output_text.done", ...place, text, logprobs: [...logprobs] });
    } else {
      this.#write({ type: "response.reasoning_text.done", ...place, text: part.text });
    }
    this.#write({ type: "response.content_part.done", ...place, part: structuredClone(part) });
    item.status = status;
    this.#write({ type: "response.output_item.done", output_index: index, item: structuredClone(item) });
  }

  #end(status: "completed" | "incomplete" | "failed" | "cancelled"): void {
    this.#status = status;
    if (status === "completed") this.#completedAt = Math.floor(Date.now() / 1000);
    // OpenAI has no event for a cancelled response; its status tells.
    this.#write({
      type: `response.${status === "cancelled" ? "incomplete" : status}`,
      response: this.body,
    });
  }

  #write(event: Unnumbered): void {
    this.#emit({ ...event, sequence_number: this.#sequence } as ResponseStreamEvent);
    this.#sequence += 1;
  }
}

export function newId(prefix: "resp" | "msg" | "rs"): string {
  return `${prefix}_${crypto.randomUUID().replaceAll("-", "")}`;
}

function newItem(kind: OutputItem["type"]): OutputItem {
  if (kind === "message") {
    const message: MessageItem = {
      id: newId("msg"),
      type: "message",
      role: "assistant",
      status: "in_progress",
      content: [],
    };
    return message;
  }
  const reasoning: ReasoningItem = {
    id: newId("rs"),
    type: "reasoning",
    status: "in_progress",
    summary: [],
    content: [],
  };
  return reasoning;
}

/** Adds the one part that an item has. */
function newPart(item: OutputItem): Part {
  if (item.type === "message") {
    const part: OutputText = { type: "output_text", text: "", annotations: [], logprobs: [] };
    item.content.push(part);
    return part;
  }
  const part: ReasoningText = { type: "reasoning_text", text: "" };
  item.content.push(part);
  return part;
}

export function outputText(output: readonly OutputItem[]): string {
  return output
    .flatMap((item) => (item.type === "message" ? item.content.map(({ text }) => text) : []))
    .join("");
}

/** OpenAI's words for why a response failed. */
function errorOf({ status, message }: Failure): { code: string; message: string } {
  if (status === 429) return { code: "rate_limit_exceeded", message };
  return { code: status < 500 ? "invalid_prompt" : "server_error", message };
}
