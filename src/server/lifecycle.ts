/**
 * Which requests are open, and how each is told to stop. A request is stopped by its client going away or by the
 * server shutting down; both end in the abort of one signal that the engine listens to.
 */

import { MistralError } from "../errors.ts";

/** One open request: the signal its engine work runs under. */
export class RequestScope {
  readonly #controller = new AbortController();
  readonly #onClose: (scope: RequestScope) => void;
  readonly #detach: () => void;
  #clientGone = false;

  constructor(request: Request, onClose: (scope: RequestScope) => void) {
    this.#onClose = onClose;
    const onAbort = () => {
      this.#clientGone = true;
      this.abort(request.signal.reason);
    };
    if (request.signal.aborted) onAbort();
    else request.signal.addEventListener("abort", onAbort, { once: true });
    this.#detach = () => request.signal.removeEventListener("abort", onAbort);
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** The connection was closed from the other side; nothing that is written now is read. */
  get clientGone(): boolean {
    return this.#clientGone;
  }

  /** Stops the request's work; `reason` is what its consumer will see thrown. Only the first call counts. */
  abort(reason: unknown): void {
    this.#controller.abort(reason);
  }

  /** The answer is complete, or nobody reads it: frees whatever still runs. May be called again. */
  close(): void {
    this.#detach();
    this.#controller.abort(new DOMException("The request is over.", "AbortError"));
    this.#onClose(this);
  }
}

export class Lifecycle {
  readonly #open = new Set<RequestScope>();
  #draining = false;

  get draining(): boolean {
    return this.#draining;
  }

  get openRequests(): number {
    return this.#open.size;
  }

  open(request: Request): RequestScope {
    const scope = new RequestScope(request, (closed) => this.#open.delete(closed));
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
    for (const scope of this.#open) scope.abort(reason);
  }
}
