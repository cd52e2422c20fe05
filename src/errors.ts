/**
 * The one error taxonomy. Every failure that a user can cause or must act on is a `MistralError`; the code
 * decides the exit status of a command and the HTTP status and body of each API dialect. Anything else that is
 * thrown is our bug.
 */

/** What kind of failure this is. Exhaustive: a new code must be mapped by every dialect. */
export type ErrorCode =
  | "invalid_request" // the caller's request is wrong: field, type, range, combination
  | "context_length_exceeded" // the prompt does not fit the model's context or the KV block pool
  | "model_not_found" // no such model is loaded, or no such file or repository exists
  | "invalid_model_file" // a weight file, tokenizer or configuration is malformed
  | "unsupported_model" // well-formed, but an architecture or format we do not have
  | "invalid_configuration" // a flag, variable or combination of settings is impossible
  | "insufficient_memory" // a budget cannot hold what was asked for
  | "overloaded" // the queue is full; try again later
  | "engine_failed" // the engine process died, hangs or reported a device error
  | "shutting_down" // the server drains
  | "network" // a download failed
  | "backend"; // a kernel library refused or failed a call

export interface ErrorDetails {
  /** The request field, flag or metadata key at fault. */
  readonly parameter?: string;
  readonly cause?: unknown;
}

export class MistralError extends Error {
  readonly code: ErrorCode;
  readonly parameter: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "MistralError";
    this.code = code;
    this.parameter = details.parameter;
  }
}
