/**
 * The open requests of an engine, seen from its callers' side: hands out ids, wires abort signals, and brings
 * each step's report to the readers. Shared by the engine in this process and the one in another.
 */

import type { ErrorCode } from "../errors.ts";
import { EventStream } from "./event-stream.ts";
import { OPEN_REQUESTS_MAX } from "./limits.ts";
import type { GenerateRequest, GenerationEvent } from "./messages.ts";
import type { StepReport, TerminalEvent } from "./step-report.ts";

/** Where requests go. */
export interface RequestSink {
  submit(request: GenerateRequest): void;
  abort(id: number): void;
}

interface OpenRequest {
  readonly stream: EventStream;
  /** Stops listening to the caller's signal. */
  readonly unlisten: () => void;
}

export class RequestTable {
  readonly #sink: RequestSink;
  readonly #openMax: number;
  readonly #open = new Map<number, OpenRequest>();
  #nextId = 1;
  #idle: PromiseWithResolvers<void> | null = null;

  constructor(sink: RequestSink, openMax: number = OPEN_REQUESTS_MAX) {
    this.#sink = sink;
    this.#openMax = openMax;
  }

  /** Requests the engine still works on, those included whose reader has left. */
  get size(): number {
    return this.#open.size;
  }

  /** Submits a request at once and returns its events. */
  start(
    request: Omit<GenerateRequest, "id">,
    signal: AbortSignal | undefined,
  ): AsyncIterable<GenerationEvent> {
    if (this.#open.size >= this.#openMax) {
      return refused(
        "overloaded",
        `the engine holds ${this.#open.size} requests, its limit; try again later`,
      );
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
      if (this.#open.has(id)) this.#sink.abort(id);
    };
    const stream = new EventStream(abort);
    signal?.addEventListener("abort", abort, { once: true });
    this.#open.set(id, { stream, unlisten: () => signal?.removeEventListener("abort", abort) });
    this.#sink.submit({ ...request, id });
    return stream;
  }

  dispatch(report: StepReport): void {
    for (const { id, event } of report.prompts) this.#open.get(id)?.stream.pushPrompt(event);
    const { ids, tokens, logprobs } = report;
    for (let index = 0; index < ids.length; index++) {
      this.#open.get(ids[index]!)?.stream.pushToken(tokens[index]!, logprobs[index] ?? null);
    }
    for (const { id, event } of report.ends) this.#end(id, event);
  }

  /** Ends every open request with an error. */
  failAll(code: ErrorCode, message: string): void {
    for (const id of [...this.#open.keys()]) this.#end(id, { type: "error", code, message });
  }

  /** Resolves when no request is open. */
  whenIdle(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve();
    this.#idle ??= Promise.withResolvers<void>();
    return this.#idle.promise;
  }

  #end(id: number, event: TerminalEvent): void {
    const request = this.#open.get(id);
    if (request === undefined) return;
    this.#open.delete(id);
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
