/**
 * The open requests of an engine, seen from its callers' side: hands out ids, wires abort signals, and brings
 * each step's report to the readers. Shared by the engine in this process and the one in another.
 */

import type { ErrorCode } from "../errors.ts";
import { EventStream } from "./event-stream.ts";
import { PENDING_TOKENS_MAX, QUEUED_REQUESTS_MAX, QUEUED_TOKENS_MAX } from "./limits.ts";
import type { GenerateRequest, GenerationEvent, StartListener } from "./messages.ts";
import type { StepReport, TerminalEvent } from "./step-report.ts";
import { TEXT_COMPLETE } from "./text-complete.ts";

/** Where requests go. */
export interface RequestSink {
  submit(request: GenerateRequest): void;
  abort(id: number, reason: "stop" | "abort"): void;
}

export interface QueueBounds {
  /** Requests that wait beyond those that may run (`--max-queued-requests`). */
  readonly queuedRequestsMax?: number | undefined;
  /** Prompt tokens of the requests that wait (`--max-queued-tokens`); one request may always wait. */
  readonly queuedTokensMax?: number | undefined;
  /** Tokens that wait for their reader before the request is ended as abandoned. */
  readonly pendingTokensMax?: number | undefined;
}

interface OpenRequest {
  readonly stream: EventStream;
  /** Stops listening to the caller's signal. */
  readonly unlisten: () => void;
  readonly promptTokens: number;
  readonly submittedAtMs: number;
  readonly onStarted: StartListener | undefined;
  /** The engine has begun with it, so that it waits no longer. */
  started: boolean;
}

export class RequestTable {
  readonly #sink: RequestSink;
  readonly #openMax: number;
  readonly #queuedRequestsMax: number;
  readonly #queuedTokensMax: number;
  readonly #pendingTokensMax: number;
  #queuedTokens = 0;
  readonly #open = new Map<number, OpenRequest>();
  #nextId = 1;
  #idle: PromiseWithResolvers<void> | null = null;

  /** Requests that were not taken because the queue was full. */
  refused = 0;
  /** Requests that were ended from this side, because the engine was gone. */
  failed = 0;

  constructor(sink: RequestSink, bounds: QueueBounds & { readonly sequencesMax: number }) {
    this.#sink = sink;
    this.#queuedRequestsMax = bounds.queuedRequestsMax ?? QUEUED_REQUESTS_MAX;
    this.#queuedTokensMax = bounds.queuedTokensMax ?? QUEUED_TOKENS_MAX;
    this.#pendingTokensMax = bounds.pendingTokensMax ?? PENDING_TOKENS_MAX;
    this.#openMax = bounds.sequencesMax + this.#queuedRequestsMax;
  }

  /** Requests the engine still works on, those included whose reader has left. */
  get size(): number {
    return this.#open.size;
  }

  /** Submits a request at once and returns its events. */
  start(
    request: Omit<GenerateRequest, "id">,
    signal: AbortSignal | undefined,
    onStarted?: StartListener,
  ): AsyncIterable<GenerationEvent> {
    const full = this.#whyFull(request.promptTokens.length);
    if (full !== null) {
      this.refused += 1;
      return refused("overloaded", full);
    }
    if (signal?.aborted === true) {
      const promptTokens = request.promptTokens.length;
      return ended({
        type: "finish",
        reason: "abort",
        usage: { promptTokens, completionTokens: 0, cachedTokens: 0 },
      });
    }
    const id = this.#nextId++;
    const abort = (): void => {
      if (this.#open.has(id)) this.#sink.abort(id, signal?.reason === TEXT_COMPLETE ? "stop" : "abort");
    };
    const stream = new EventStream(abort, this.#pendingTokensMax);
    signal?.addEventListener("abort", abort, { once: true });
    const promptTokens = request.promptTokens.length;
    const unlisten = (): void => signal?.removeEventListener("abort", abort);
    const submittedAtMs = performance.now();
    this.#open.set(id, { stream, unlisten, promptTokens, submittedAtMs, onStarted, started: false });
    this.#queuedTokens += promptTokens;
    this.#sink.submit({ ...request, id });
    return stream;
  }

  dispatch(report: StepReport): void {
    for (const id of report.started) {
      const request = this.#open.get(id);
      if (request === undefined || request.started) continue;
      this.#leaveQueue(request);
      const waitedMs = performance.now() - request.submittedAtMs - (report.startedAgoMs ?? 0);
      request.onStarted?.(Math.max(0, waitedMs) / 1000);
    }
    for (const { id, event } of report.prompts) this.#open.get(id)?.stream.pushPrompt(event);
    const { ids, tokens, logprobs } = report;
    for (let index = 0; index < ids.length; index++) {
      this.#open.get(ids[index]!)?.stream.pushToken(tokens[index]!, logprobs[index] ?? null);
    }
    for (const { id, event } of report.ends) this.#end(id, event);
  }

  /** Ends every open request with an error. */
  failAll(code: ErrorCode, message: string): void {
    this.failed += this.#open.size;
    for (const id of [...this.#open.keys()]) this.#end(id, { type: "error", code, message });
  }

  /** Resolves when no request is open. */
  whenIdle(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    this.#idle ??= Promise.withResolvers<void>();
    return this.#idle.promise;
  }

  /** Why a request with such a prompt cannot wait here, or null. */
  #whyFull(promptTokens: number): string | null {
    if (this.#open.size >= this.#openMax) {
      return `the queue is full: ${this.#open.size} requests are open and ${this.#queuedRequestsMax} may wait (--max-queued-requests); try again later`;
    }
    if (this.#queuedTokens > 0 && this.#queuedTokens + promptTokens > this.#queuedTokensMax) {
      return `the queue is full: prompts of ${this.#queuedTokens} tokens wait, this one has ${promptTokens}, and ${this.#queuedTokensMax} may wait (--max-queued-tokens); try again later`;
    }
    return null;
  }

  #leaveQueue(request: OpenRequest): void {
    if (request.started) return;
    request.started = true;
    this.#queuedTokens -= request.promptTokens;
  }

  #end(id: number, event: TerminalEvent): void {
    const request = this.#open.get(id);
    if (request === undefined) return;
    this.#open.delete(id);
    this.#leaveQueue(request);
    request.unlisten();
    request.stream.end(event);
    if (this.#open.size > 0 || this.#idle === null) return;
    this.#idle.resolve();
    this.#idle = null;
  }
}

/** The events of a request that was never submitted. */
export function refused(code: ErrorCode, message: string): AsyncIterable<GenerationEvent> {
  return ended({ type: "error", code, message });
}

function ended(event: TerminalEvent): AsyncIterable<GenerationEvent> {
  const stream = new EventStream(() => {});
  stream.end(event);
  return stream;
}
