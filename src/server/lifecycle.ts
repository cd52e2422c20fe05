/**
 * Which requests are open, and how each is told to stop. A request is stopped by its client going away or by the
 * server shutting down; both end in the abort of one signal that the engine listens to.
 */

import { MistralError } from "../errors.ts";
import { HttpFailure } from "./failure.ts";
import type { RequestRecords } from "./request-record.ts";

/** Why a request was ended before its answer was complete. */
export type AbortCause = "client_left" | "client_too_slow" | "timeout" | "cancelled" | "shutdown";

/** One open request: the signal its engine work runs under. */
export class RequestScope {
  readonly #controller = new AbortController();
  readonly #onClose: (scope: RequestScope) => void;
  #detach: (() => void) | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #cause: AbortCause | undefined;
  #closed = false;

  /** @param request undefined for work that goes on without a connection. */
  constructor(request: Request | undefined, timeoutMs: number, onClose: (scope: RequestScope) => void) {
    this.#onClose = onClose;
    if (timeoutMs > 0) this.#timer = setTimeout(() => this.abort(outOfTime(timeoutMs), "timeout"), timeoutMs);
    if (request !== undefined) this.#follow(request.signal);
  }

  #follow(signal: AbortSignal): void {
    const onAbort = () => {
      this.abort(signal.reason, "client_left");
    };
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
    this.#detach = () => signal.removeEventListener("abort", onAbort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The connection was closed from the other side; nothing that is written now is read. */
  get clientGone(): boolean {
    return this.#cause === "client_left";
  }

  /** Undefined for a request that ran to its end. */
  get cause(): AbortCause | undefined {
    return this.#cause;
  }

  /** Stops the request's work; `reason` is what its consumer will see thrown. Only the first call counts. */
  abort(reason: unknown, cause: AbortCause): void {
    if (this.#closed) return;
    this.#cause ??= cause;
    this.#controller.abort(reason);
  }

  /** The answer is complete, or nobody reads it: frees whatever still runs. May be called again. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#detach?.();
    this.#controller.abort(new DOMException("The request is over.", "AbortError"));
    this.#onClose(this);
  }
}

function outOfTime(timeoutMs: number): HttpFailure {
  const text = `The request was not answered within ${timeoutMs / 1000} s, the time this server gives one request.`;
  return new HttpFailure(504, text, { code: "request_timeout" });
}

export class Lifecycle {
  readonly #open = new Set<RequestScope>();
  #draining = false;
  #timeoutMs = 0;
  #records: RequestRecords | undefined;

  /** @param timeoutMs longest life of a request, 0 for no limit; `records` end when the scopes of their request do. */
  configure(timeoutMs: number, records: RequestRecords): void {
    this.#timeoutMs = timeoutMs;
    this.#records = records;
  }

  get draining(): boolean {
    return this.#draining;
  }

  get openRequests(): number {
    return this.#open.size;
  }

  open(request: Request): RequestScope {
    this.#records?.hold(request);
    return this.#add(request, ({ cause }) => this.#records?.release(request, cause));
  }

  /** Work of the server's own that no connection waits for; a stopping server waits for it as for requests. */
  openDetached(): RequestScope {
    return this.#add(undefined, () => {});
  }

  #add(request: Request | undefined, onClose: (scope: RequestScope) => void): RequestScope {
    const scope = new RequestScope(request, this.#timeoutMs, (closed) => {
      this.#open.delete(closed);
      onClose(closed);
    });
    this.#open.add(scope);
    return scope;
  }

  /** From now on new work is refused. */
  drain(): void {
    this.#draining = true;
  }

  /** Ends every open request with an error that its client is told. */
  abortAll(): void {
    const reason = new MistralError("shutting_down", "The server is shutting down and ended this request.");
    for (const scope of this.#open) scope.abort(reason, "shutdown");
  }
}
