/** The HTTP application: the routes of every dialect, one gate before them and one handler of failures behind. */

import { Elysia } from "elysia";
import { MistralError } from "../errors.ts";
import { checkAnnouncedLength } from "./body.ts";
import { createContext, type ServerContext, type ServerSettings } from "./context.ts";
import { failureOf, HttpFailure } from "./failure.ts";
import { healthRoutes } from "./health.ts";
import { Lifecycle } from "./lifecycle.ts";
import { allowedMethods, type RouteShape } from "./methods.ts";
import { errorResponse } from "./openai/errors.ts";
import { openaiRoutes } from "./openai/routes.ts";
import { type BodyComplaint, bodyFailure } from "./openai/validation.ts";
import type { ModelRegistry } from "./served-model.ts";

export interface AppOptions {
  readonly models: ModelRegistry;
  readonly settings: ServerSettings;
  /** Given by whoever stops the server; a new one when left out. */
  readonly lifecycle?: Lifecycle;
}

export function createApp(options: AppOptions) {
  const context = createContext(options.models, options.lifecycle ?? new Lifecycle(), options.settings);
  let routes: readonly RouteShape[] = [];
  const app = new Elysia({ name: "mistral.ts", normalize: false })
    .onRequest(({ request }) => {
      checkAnnouncedLength(request);
      if (context.lifecycle.draining && request.method === "POST") {
        throw new MistralError("shutting_down", "The server is shutting down and takes no new requests.");
      }
    })
    .onError(({ code, error, request, path }) => {
      const cause = code === "PARSE" && error.cause !== undefined ? error.cause : error;
      if (code === "NOT_FOUND") return errorResponse(noRoute(routes, request.method, path).failure);
      if (code === "VALIDATION" && error.type === "body") {
        return errorResponse(bodyFailure(error as unknown as BodyComplaint).failure);
      }
      return failed(context, request, path, cause);
    })
    .use(healthRoutes(context))
    .use(openaiRoutes(context));
  routes = app.routes;
  return app;
}

/** The type from which the typed client takes its routes. */
export type App = ReturnType<typeof createApp>;

function failed(context: ServerContext, request: Request, path: string, cause: unknown): Response {
  const failure = failureOf(cause);
  const clientGone = request.signal.aborted;
  if (failure.unexpected && !clientGone) context.logError(`${request.method} ${path} failed`, cause);
  return errorResponse(failure);
}

function noRoute(routes: readonly RouteShape[], method: string, path: string): HttpFailure {
  const allowed = allowedMethods(routes, path);
  if (allowed.length === 0) {
    return new HttpFailure(404, `There is no route ${method} ${path.slice(0, 200)}.`, {
      code: "unknown_url",
    });
  }
  const list = allowed.join(", ");
  return new HttpFailure(405, `${path} does not answer ${method}; it answers ${list}.`, {
    code: "method_not_allowed",
    headers: { allow: list },
  });
}
