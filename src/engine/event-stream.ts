/**
 * The events of one request on their way to its reader. Tokens that wait are merged into one event, so a slow
 * reader costs memory by the token and not by the step, and only up to a bound.
 */

import { PENDING_TOKENS_MAX } from "./limits.ts";
import type { GenerationEvent, TokenLogprob } from "./messages.ts";
import type { PromptEvent, TerminalEvent } from "./step-report.ts";

interface PendingTokens {
  readonly type: "tokens";
  readonly tokens: number[];
  readonly logprobs: TokenLogprob[];
}

export class EventStream implements AsyncIterableIterator<GenerationEvent, undefined> {
  readonly #abort: () => void;
  readonly #pendingMax: number;
  readonly #events: GenerationEvent[] = [];
  /** The last of `#events` when it is unread tokens that more can join. */
  #open: PendingTokens | null = null;
  #pendingTokens = 0;
  #reader: ((result: IteratorResult<GenerationEvent, undefined>) => void) | null = null;
  #ended = false;

  /** `abort` is called at most once, when the reader leaves early or stays too far behind. */
  constructor(abort: () => void, pendingMax: number = PENDING_TOKENS_MAX) {
    this.#abort = abort;
    this.#pendingMax = pendingMax;
  }

  get ended(): boolean {
    return this.#ended;
  }

  pushToken(token: number, logprob: TokenLogprob | null): void {
    if (this.#ended) return;
    if (this.#reader !== null) {
      this.#deliver({ type: "tokens", tokens: [token], logprobs: logprob === null ? [] : [logprob] });
      return;
    }
    if (this.#open === null) {
      this.#open = { type: "tokens", tokens: [], logprobs: [] };
      this.#events.push(this.#open);
    }
    this.#open.tokens.push(token);
    if (logprob !== null) this.#open.logprobs.push(logprob);
    this.#pendingTokens += 1;
    if (this.#pendingTokens > this.#pendingMax) this.#overflow();
  }

  pushPrompt(event: PromptEvent): void {
    if (!this.#ended) this.#deliver(event);
  }

  /** The terminal event. Whatever comes after the first one is ignored. */
  end(event: TerminalEvent): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#deliver(event);
  }

  next(): Promise<IteratorResult<GenerationEvent, undefined>> {
    const event = this.#events.shift();
    if (event !== undefined) {
      if (event === this.#open) this.#open = null;
      if (event.type === "tokens") this.#pendingTokens -= event.tokens.length;
      return Promise.resolve({ done: false, value: event });
    }
    if (this.#ended) return Promise.resolve({ done: true, value: undefined });
    if (this.#reader !== null) throw new Error("a request's events have one reader");
    return new Promise((resolve) => {
      this.#reader = resolve;
    });
  }

  /** The reader leaves: the request is aborted unless it has ended, and nothing more is delivered. */
  return(): Promise<IteratorResult<GenerationEvent, undefined>> {
    this.#events.length = 0;
    this.#open = null;
    if (!this.#ended) {
      this.#ended = true;
      this.#abort();
    }
    const reader = this.#reader;
    this.#reader = null;
    reader?.({ done: true, value: undefined });
    return Promise.resolve({ done: true, value: undefined });
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #deliver(event: GenerationEvent): void {
    const reader = this.#reader;
    if (reader === null) {
      this.#open = null;
      this.#events.push(event);
      return;
    }
    this.#reader = null;
    reader({ done: false, value: event });
  }

  #overflow(): void {
    this.#abort();
    this.end({
      type: "error",
      code: "overloaded",
      message: `the reader of this request fell more than ${this.#pendingMax} tokens behind; the request was aborted`,
    });
  }
}
