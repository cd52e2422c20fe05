/**
 * The one place where a thrown value becomes a failure of an HTTP request: its status and what may be told. Each
 * dialect gives a failure its own body; none of them looks at error classes.
 */

import { type ErrorCode, MistralError } from "../errors.ts";

/** Every status a failure has. Closed, so that each dialect can say what each of them means in its words. */
export type FailureStatus = 400 | 401 | 403 | 404 | 405 | 409 | 413 | 415 | 429 | 431 | 500 | 501 | 503 | 504;

/** A failed request, in no dialect's words. */
export interface Failure {
  readonly status: FailureStatus;
  readonly message: string;
  /** A word for programs, such as `model_not_found`; null when the status says it all. */
  readonly code: string | null;
  /** The request field at fault, written as a path: `messages[0].role`. */
  readonly parameter: string | null;
  readonly headers: Readonly<Record<string, string>>;
  /** The server's own fault, of which the log must say more than the client is told. */
  readonly unexpected: boolean;
}

/** A failure of the HTTP exchange itself, which no part below the server knows about. */
export class HttpFailure extends Error {
  readonly failure: Failure;

  constructor(
    status: FailureStatus,
    message: string,
    details: { code?: string; parameter?: string | null; headers?: Record<string, string> } = {},
  ) {
    super(message);
    this.name = "HttpFailure";
    this.failure = {
      status,
      message,
      code: details.code ?? null,
      parameter: details.parameter ?? null,
      headers: details.headers ?? {},
      unexpected: false,
    };
  }
}

const RETRY_AFTER = { "retry-after": "1" } as const;

interface Mapping {
  readonly status: FailureStatus;
  readonly code: string | null;
  readonly headers?: Readonly<Record<string, string>>;
}

function mappingOf(code: ErrorCode): Mapping {
  switch (code) {
    case "invalid_request":
      return { status: 400, code: "invalid_value" };
    case "context_length_exceeded":
      return { status: 400, code };
    case "model_not_found":
      return { status: 404, code };
    case "overloaded":
      return { status: 429, code, headers: RETRY_AFTER };
    case "engine_failed":
    case "shutting_down":
      return { status: 503, code, headers: RETRY_AFTER };
    case "insufficient_memory":
    case "invalid_model_file":
    case "unsupported_model":
    case "invalid_configuration":
    case "network":
    case "backend":
      return { status: 500, code };
    default:
      return unmapped(code);
  }
}

function unmapped(code: never): never {
  throw new Error(`error code ${String(code)} has no HTTP status`);
}

/** What to answer for a thrown value. Anything that is no named error is our bug, and its text stays in the log. */
export function failureOf(error: unknown): Failure {
  if (error instanceof HttpFailure) return error.failure;
  if (error instanceof MistralError) {
    const { status, code, headers } = mappingOf(error.code);
    return {
      status,
      message: error.message,
      code,
      parameter: error.parameter ?? null,
      headers: headers ?? {},
      unexpected: status === 500,
    };
  }
  return {
    status: 500,
    message: "The server failed to answer this request; its log says why.",
    code: "internal_error",
    parameter: null,
    headers: {},
    unexpected: true,
  };
}
