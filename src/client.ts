/**
 * The typed client: every route with the types of its schemas, through Eden, and the streams as async iterables of
 * typed chunks. Imports only types from the server, so it can be used where no server can run.
 */

import { treaty } from "@elysiajs/eden";
import { type ErrorCode, MistralError } from "./errors.ts";
import type { MessageBody } from "./server/anthropic/message-parameters.ts";
import type { MessageEvent } from "./server/anthropic/shapes.ts";
import type { App } from "./server/app.ts";
import type { ChatBody } from "./server/openai/chat-parameters.ts";
import type { CompletionBody } from "./server/openai/completion-parameters.ts";
import type { ChatCompletionChunk, CompletionChunk } from "./server/openai/responses.ts";
import type { ResponseCreateBody } from "./server/responses/parameters.ts";
import type { ResponseStreamEvent } from "./server/responses/shapes.ts";

export interface ClientOptions {
  /** Sent as a bearer token. */
  readonly apiKey?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

export type Client = ReturnType<typeof treaty<App>>;

export interface StreamOptions {
  /** Ends the stream, and the work behind it on the server. */
  readonly signal?: AbortSignal;
}

/**
 * A client of the server at `url`. Calls never throw for an answer of the server: `{ data, error }` has one of the
 * two, `error.status` and `error.value` typed by route.
 *
 * ```ts
 * const client = createClient("http://127.0.0.1:1234");
 * const { data, error } = await client.v1.chat.completions.post({ messages: [{ role: "user", content: "Hi" }] });
 * ```
 */
export function createClient(url: string, options: ClientOptions = {}): Client {
  const authorization = options.apiKey === undefined ? {} : { authorization: `Bearer ${options.apiKey}` };
  return treaty<App>(url, {
    headers: { ...authorization, ...options.headers },
    // Eden would turn answers that look like a date into Date objects.
    parseDate: false,
  });
}

/** The chunks of a streamed chat answer. Throws MistralError when the server refuses or fails, also midway. */
export async function* chatStream(
  client: Client,
  body: Omit<ChatBody, "stream">,
  options: StreamOptions = {},
): AsyncGenerator<ChatCompletionChunk, void, undefined> {
  const answer = await client.v1.chat.completions.post({ ...body, stream: true }, fetchOptions(options));
  yield* chunksOf<ChatCompletionChunk>(answer);
}

/** The chunks of a streamed completion. Throws MistralError when the server refuses or fails, also midway. */
export async function* completionStream(
  client: Client,
  body: Omit<CompletionBody, "stream">,
  options: StreamOptions = {},
): AsyncGenerator<CompletionChunk, void, undefined> {
  const answer = await client.v1.completions.post({ ...body, stream: true }, fetchOptions(options));
  yield* chunksOf<CompletionChunk>(answer);
}

/**
 * The events of a streamed response, up to the one that completes it. Leaving the loop stops a response unless it
 * runs in the background. Throws MistralError when the server refuses or fails, also midway.
 */
export async function* responseStream(
  client: Client,
  body: Omit<ResponseCreateBody, "stream">,
  options: StreamOptions = {},
): AsyncGenerator<ResponseStreamEvent, void, undefined> {
  const answer = await client.v1.responses.post({ ...body, stream: true }, fetchOptions(options));
  for await (const event of chunksOf<ResponseStreamEvent>(answer)) {
    if (event.type === "error") throw errorOf({ error: event }, "the response failed");
    yield event;
  }
}

/** The events of a streamed message in Anthropic's words. Throws MistralError when the server refuses or fails, also midway. */
export async function* messageStream(
  client: Client,
  body: Omit<MessageBody, "stream">,
  options: StreamOptions = {},
): AsyncGenerator<MessageEvent, void, undefined> {
  const answer = await client.v1.messages.post({ ...body, stream: true }, fetchOptions(options));
  for await (const event of chunksOf<MessageEvent>(answer)) {
    yield event;
    if (event.type === "message_stop") return;
  }
}

function fetchOptions(options: StreamOptions) {
  return { fetch: options.signal === undefined ? {} : { signal: options.signal } };
}

interface StreamAnswer {
  readonly response: Response | undefined;
  readonly error: { readonly status: number; readonly value: unknown } | null;
}

async function* chunksOf<Chunk>({ response, error }: StreamAnswer): AsyncGenerator<Chunk, void, undefined> {
  if (error !== null) throw errorOf(error.value, `the server answered with status ${error.status}`);
  if (response?.body == null) throw new MistralError("network", "the server sent no stream");
  for await (const data of eventData(response.body)) {
    if (data === "[DONE]") return;
    const chunk: unknown = JSON.parse(data);
    if (typeof chunk === "object" && chunk !== null && "error" in chunk)
      throw errorOf(chunk, "the stream failed");
    yield chunk as Chunk;
  }
  throw new MistralError("network", "the stream ended before its last event");
}

/** The data of each server-sent event. Leaving the loop closes the connection. */
async function* eventData(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void, undefined> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let unread = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      unread += decoder.decode(value, { stream: true });
      const events = unread.split("\n\n");
      unread = events.pop() ?? "";
      for (const event of events) {
        const lines = event.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length > 0) yield lines.map((line) => line.slice(5).replace(/^ /, "")).join("\n");
      }
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

/** By the word for programs of OpenAI's errors, or the type of Anthropic's. */
const CODES: Readonly<Record<string, ErrorCode>> = {
  context_length_exceeded: "context_length_exceeded",
  model_not_found: "model_not_found",
  not_found_error: "model_not_found",
  overloaded: "overloaded",
  rate_limit_error: "overloaded",
  engine_failed: "engine_failed",
  overloaded_error: "engine_failed",
  shutting_down: "shutting_down",
  backend: "backend",
  internal_error: "engine_failed",
  api_error: "engine_failed",
};

interface AnsweredError {
  readonly message?: unknown;
  readonly code?: unknown;
  readonly type?: unknown;
  readonly param?: unknown;
}

function errorOf(body: unknown, otherwise: string): MistralError {
  const error = (body as { error?: AnsweredError } | null)?.error;
  const message = typeof error?.message === "string" ? error.message : otherwise;
  const known = CODES[String(error?.code)] ?? CODES[String(error?.type)];
  const code = known ?? (error === undefined ? "network" : "invalid_request");
  return new MistralError(code, message, typeof error?.param === "string" ? { parameter: error.param } : {});
}
