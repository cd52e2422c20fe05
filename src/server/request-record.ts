/**
 * What is known of each request while it runs: its id, route, model, tokens and times. The access log and the
 * metrics are told of it when it ends, streams included. Holds no text unless a log asks for it.
 */

import type { StartListener, Usage } from "../engine/messages.ts";
import type { TextEvent, TextRequest } from "./generation/request.ts";
import type { AbortCause } from "./lifecycle.ts";

export interface RecordWatcher {
  started?(record: RequestRecord): void;
  /** One of its sequences took part in a step for the first time, having waited this long for it. */
  queued?(record: RequestRecord, seconds: number): void;
  /** Tokens came this long after the ones before them. */
  tokens?(record: RequestRecord, sinceLastMs: number): void;
  completed(record: RequestRecord): void;
}

const GIVEN_ID = /^[\x21-\x7e]{1,200}$/;

export class RequestRecord {
  readonly id: string;
  readonly method: string;
  readonly path: string;
  readonly contentLength: number | undefined;
  readonly startedMs = performance.now();
  /** The caller's place in a trace, as it says. */
  readonly traceParent: string | undefined;
  readonly traceState: string | undefined;
  /** The route's pattern; undefined for a path that has none. */
  route: string | undefined;
  model: string | undefined;
  /** The name of the API key that was presented. */
  keyName: string | undefined;
  /** Of the answer's head; what failed after it is in `error`. */
  status = 0;
  streamed = false;
  usage: Usage | undefined;
  /** When its work was handed to the engine. */
  submittedMs: number | undefined;
  /** Until the first of its sequences took part in a step. */
  queueSeconds: number | undefined;
  firstTokenMs: number | undefined;
  lastTokenMs: number | undefined;
  endedMs: number | undefined;
  error: string | undefined;
  /** What ended it before its answer was complete. */
  abortCause: AbortCause | undefined;
  prompt: string | undefined;
  /** As it was sent, parsed; kept for the request log alone. */
  body: unknown;
  /** What each choice said; kept for the request log alone. */
  readonly answers: AnswerText[] = [];

  constructor(request: Request, path: string) {
    const given = request.headers.get("x-request-id") ?? "";
    this.id = GIVEN_ID.test(given) ? given : `req_${crypto.randomUUID().replaceAll("-", "")}`;
    this.method = request.method;
    this.path = path;
    const length = request.headers.get("content-length");
    this.traceParent = request.headers.get("traceparent") ?? undefined;
    this.traceState = request.headers.get("tracestate") ?? undefined;
    this.contentLength = length === null ? undefined : Number(length);
  }

  get durationMs(): number {
    return (this.endedMs ?? performance.now()) - this.startedMs;
  }

  /** Prompt tokens per second until the first token. */
  get prefillSpeed(): number | undefined {
    if (this.usage === undefined || this.firstTokenMs === undefined) return undefined;
    return perSecond(this.usage.promptTokens - this.usage.cachedTokens, this.firstTokenMs - this.startedMs);
  }

  /** Generated tokens per second after the first. */
  get decodeSpeed(): number | undefined {
    if (this.usage === undefined || this.firstTokenMs === undefined || this.lastTokenMs === undefined)
      return undefined;
    return perSecond(this.usage.completionTokens - 1, this.lastTokenMs - this.firstTokenMs);
  }
}

export interface AnswerText {
  content: string;
  reasoning: string;
}

export interface RecordOptions {
  /** The text of prompts, for the access log. */
  readonly keepPrompts: boolean;
  /** Bodies and answers, for the request log. */
  readonly keepTexts?: boolean;
}

/** The records of all open requests. */
export class RequestRecords {
  readonly #records = new WeakMap<
    Request,
    { readonly record: RequestRecord; open: number; answered: boolean }
  >();
  readonly #watchers: RecordWatcher[] = [];
  readonly #keepPrompts: boolean;
  readonly #keepTexts: boolean;

  constructor({ keepPrompts, keepTexts = false }: RecordOptions) {
    this.#keepPrompts = keepPrompts;
    this.#keepTexts = keepTexts;
  }

  watch(watcher: RecordWatcher): void {
    this.#watchers.push(watcher);
  }

  begin(request: Request, path: string): RequestRecord {
    const record = new RequestRecord(request, path);
    this.#records.set(request, { record, open: 0, answered: false });
    return record;
  }

  of(request: Request): RequestRecord | undefined {
    return this.#records.get(request)?.record;
  }

  /** The route has taken the request with this body; told once, before its work begins. */
  started(record: RequestRecord, body?: unknown): void {
    if (this.#keepTexts) record.body = body;
    for (const watcher of this.#watchers) watcher.started?.(record);
  }

  /** Work goes on that may outlast the head of the answer: a record ends when all of it has. */
  hold(request: Request): void {
    const entry = this.#records.get(request);
    if (entry !== undefined) entry.open += 1;
  }

  release(request: Request, cause: AbortCause | undefined): void {
    const entry = this.#records.get(request);
    if (entry === undefined) return;
    entry.open -= 1;
    entry.record.abortCause ??= cause;
    this.#completeIfOver(request, entry);
  }

  /** The head of the answer is out. */
  answered(request: Request): void {
    const entry = this.#records.get(request);
    if (entry === undefined) return;
    entry.answered = true;
    this.#completeIfOver(request, entry);
  }

  /** To be told of each sequence of the request that the engine begins with. */
  queueListener(request: Request): StartListener | undefined {
    const record = this.of(request);
    if (record === undefined) return undefined;
    record.submittedMs ??= performance.now();
    return (seconds) => {
      record.queueSeconds ??= seconds;
      for (const watcher of this.#watchers) watcher.queued?.(record, seconds);
    };
  }

  /** Passes a request's events on and notes their times, tokens and failure. */
  async *observe(
    request: Request,
    { prompts }: Pick<TextRequest, "prompts">,
    source: AsyncIterable<readonly TextEvent[]>,
  ): AsyncGenerator<readonly TextEvent[], void, undefined> {
    const record = this.of(request);
    if (record === undefined) {
      yield* source;
      return;
    }
    if (this.#keepPrompts) record.prompt = prompts.map(({ text }) => text ?? "(token ids)").join("\n");
    try {
      for await (const batch of source) {
        this.#note(record, batch);
        yield batch;
      }
    } catch (error) {
      if (!request.signal.aborted) record.error = error instanceof Error ? error.message : String(error);
      throw error;
    }
  }

  #note(record: RequestRecord, batch: readonly TextEvent[]): void {
    let generated = false;
    for (const event of batch) {
      if (this.#keepTexts) keepText(record.answers, event);
      if (event.type === "usage") record.usage = event.usage;
      else if (event.type !== "prompt" && event.type !== "finish") generated = true;
    }
    if (!generated) return;
    const now = performance.now();
    const { lastTokenMs } = record;
    record.firstTokenMs ??= now;
    record.lastTokenMs = now;
    if (lastTokenMs === undefined) return;
    for (const watcher of this.#watchers) watcher.tokens?.(record, now - lastTokenMs);
  }

  #completeIfOver(
    request: Request,
    entry: { readonly record: RequestRecord; readonly open: number; readonly answered: boolean },
  ): void {
    if (!entry.answered || entry.open > 0) return;
    this.#records.delete(request);
    entry.record.endedMs = performance.now();
    for (const watcher of this.#watchers) watcher.completed(entry.record);
  }
}

function keepText(answers: AnswerText[], event: TextEvent): void {
  if (event.type !== "text" && event.type !== "reasoning") return;
  answers[event.choice] ??= { content: "", reasoning: "" };
  const answer = answers[event.choice]!;
  if (event.type === "text") answer.content += event.text;
  else answer.reasoning += event.text;
}

function perSecond(count: number, milliseconds: number): number | undefined {
  return count <= 0 || milliseconds <= 0 ? undefined : (count * 1000) / milliseconds;
}
