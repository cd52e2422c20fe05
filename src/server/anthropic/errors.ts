/** A failure in Anthropic's words. */

import { t } from "elysia";
import type { Failure, FailureStatus } from "../failure.ts";
import { namedEvent } from "../sse.ts";

const ErrorType = t.Union([
  t.Literal("invalid_request_error"),
  t.Literal("authentication_error"),
  t.Literal("permission_error"),
  t.Literal("not_found_error"),
  t.Literal("request_too_large"),
  t.Literal("rate_limit_error"),
  t.Literal("timeout_error"),
  t.Literal("api_error"),
  t.Literal("overloaded_error"),
]);
type ErrorType = typeof ErrorType.static;

export const ErrorBody = t.Object({
  type: t.Literal("error"),
  error: t.Object({ type: ErrorType, message: t.String() }),
  /** Also in the header `request-id`. */
  request_id: t.Union([t.String(), t.Null()]),
});
export type ErrorBody = typeof ErrorBody.static;

const ERROR_TYPES: Readonly<Record<FailureStatus, ErrorType>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  403: "permission_error",
  404: "not_found_error",
  405: "invalid_request_error",
  409: "invalid_request_error",
  413: "request_too_large",
  415: "invalid_request_error",
  429: "rate_limit_error",
  431: "invalid_request_error",
  500: "api_error",
  501: "api_error",
  503: "overloaded_error",
  504: "timeout_error",
};

/** The failures any route may answer with, for the typed client and the API document. */
export const ERROR_RESPONSES = {
  400: ErrorBody,
  401: ErrorBody,
  403: ErrorBody,
  404: ErrorBody,
  405: ErrorBody,
  413: ErrorBody,
  415: ErrorBody,
  429: ErrorBody,
  431: ErrorBody,
  500: ErrorBody,
  503: ErrorBody,
  504: ErrorBody,
};

/** Paths whose every failure is told in this dialect, those before a route is found included. */
export function speaksAnthropic(path: string): boolean {
  return path === "/v1/messages" || path.startsWith("/v1/messages/");
}

/** The name of the header in which Anthropic's clients look for the id of a request. */
export const REQUEST_ID_HEADER = "request-id";

export function errorBody(failure: Failure, requestId: string | undefined): ErrorBody {
  const { status } = failure;
  const error = { type: ERROR_TYPES[status], message: messageOf(failure) };
  return { type: "error", error, request_id: requestId ?? null };
}

/** These bodies have no place for the field at fault but the message. */
function messageOf({ message, parameter }: Failure): string {
  return parameter === null || message.includes(parameter) ? message : `${parameter}: ${message}`;
}

export function errorResponse(failure: Failure, requestId: string | undefined): Response {
  const id = requestId === undefined ? {} : { [REQUEST_ID_HEADER]: requestId };
  return Response.json(errorBody(failure, requestId), {
    status: failure.status,
    headers: { ...failure.headers, ...id },
  });
}

/** The event that ends a stream which failed. */
export function errorEvent(failure: Failure, requestId: string | undefined): string {
  return namedEvent("error", JSON.stringify(errorBody(failure, requestId)));
}
