/** What one step brought, for all requests together; structured-clone safe, one message per step. */

import type { MistralError } from "../errors.ts";
import type { FinishReason, GenerationEvent, TokenLogprob, Usage } from "./messages.ts";

/** What was read off a prompt: its scores, or its embedding. */
export type PromptEvent = Extract<GenerationEvent, { type: "prompt" | "embedding" }>;
/** The last event of a request. */
export type TerminalEvent = Extract<GenerationEvent, { type: "finish" | "error" }>;

export interface StepReport {
  /** Requests that were admitted for the first time. */
  readonly started: readonly number[];
  /** How long before this report they were: the length of its step. */
  readonly startedAgoMs?: number;
  /** Prompt scores and embeddings; they come before the tokens of the same step. */
  readonly prompts: readonly { readonly id: number; readonly event: PromptEvent }[];
  /** The request of each new token. */
  readonly ids: Float64Array;
  readonly tokens: Int32Array;
  /** Runs parallel to `tokens`; empty when no request wants any. */
  readonly logprobs: readonly (TokenLogprob | null)[];
  /** Requests that ended; these come after the tokens of the same step. */
  readonly ends: readonly { readonly id: number; readonly event: TerminalEvent }[];
}

/** Collects a report while the engine works. */
export class ReportBuilder {
  #started: number[] = [];
  #prompts: { id: number; event: PromptEvent }[] = [];
  #ends: { id: number; event: TerminalEvent }[] = [];
  #ids: number[] = [];
  #tokens: number[] = [];
  #logprobs: (TokenLogprob | null)[] = [];
  #hasLogprobs = false;

  get isEmpty(): boolean {
    return this.#ids.length === 0 && this.#ends.length === 0 && this.#prompts.length === 0;
  }

  start(id: number): void {
    this.#started.push(id);
  }

  prompt(id: number, logprobs: readonly (TokenLogprob | null)[]): void {
    this.#prompts.push({ id, event: { type: "prompt", logprobs } });
  }

  embedding(id: number, vector: Float32Array): void {
    this.#prompts.push({ id, event: { type: "embedding", vector } });
  }

  token(id: number, token: number, logprob: TokenLogprob | null): void {
    this.#ids.push(id);
    this.#tokens.push(token);
    this.#logprobs.push(logprob);
    if (logprob !== null) this.#hasLogprobs = true;
  }

  finish(id: number, reason: FinishReason, usage: Usage): void {
    this.#ends.push({ id, event: { type: "finish", reason, usage } });
  }

  error(id: number, { code, message }: MistralError): void {
    this.#ends.push({ id, event: { type: "error", code, message } });
  }

  /** Hands the report over and starts a new one; `stepMs` since the plan of its step was made. */
  take(stepMs = 0): StepReport {
    const report: StepReport = {
      started: this.#started,
      startedAgoMs: stepMs,
      prompts: this.#prompts,
      ids: Float64Array.from(this.#ids),
      tokens: Int32Array.from(this.#tokens),
      logprobs: this.#hasLogprobs ? this.#logprobs : [],
      ends: this.#ends,
    };
    if (this.#started.length > 0) this.#started = [];
    if (this.#prompts.length > 0) this.#prompts = [];
    if (this.#ends.length > 0) this.#ends = [];
    if (this.#hasLogprobs) this.#logprobs = [];
    this.#logprobs.length = 0;
    this.#ids.length = 0;
    this.#tokens.length = 0;
    this.#hasLogprobs = false;
    return report;
  }
}
