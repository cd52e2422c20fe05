/** A failure in OpenAI's words. */

import { t } from "elysia";
import type { Failure } from "../failure.ts";
import { dataEvent } from "../sse.ts";

export const ErrorBody = t.Object({
  error: t.Object({
    message: t.String(),
    type: t.String(),
    param: t.Union([t.String(), t.Null()]),
    code: t.Union([t.String(), t.Null()]),
  }),
});
export type ErrorBody = typeof ErrorBody.static;

/** The failures any route may answer with, for the typed client and the API document. */
export const ERROR_RESPONSES = {
  400: ErrorBody,
  401: ErrorBody,
  403: ErrorBody,
  404: ErrorBody,
  405: ErrorBody,
  409: ErrorBody,
  413: ErrorBody,
  415: ErrorBody,
  429: ErrorBody,
  431: ErrorBody,
  500: ErrorBody,
  503: ErrorBody,
  504: ErrorBody,
};

export function errorBody(failure: Failure): ErrorBody {
  const { message, status, parameter, code } = failure;
  return { error: { message, type: errorType(status), param: parameter, code } };
}

/** The event that ends a stream which failed. */
export function errorEvent(failure: Failure): string {
  return dataEvent(JSON.stringify(errorBody(failure)));
}

export function errorResponse(failure: Failure): Response {
  return Response.json(errorBody(failure), { status: failure.status, headers: failure.headers });
}

function errorType(status: number): string {
  if (status === 429) return "rate_limit_error";
  return status >= 500 ? "server_error" : "invalid_request_error";
}
