/** The HTTP application: the routes of every dialect, one gate before them and one handler of failures behind. */

import type { TSchema } from "@sinclair/typebox";
import { Elysia } from "elysia";
import { MistralError } from "../errors.ts";
import { checkHeaders, requireKey } from "./access.ts";
import { modelAdministrationRoutes, modelStatusRoute } from "./admin/model-routes.ts";
import { systemRoutes } from "./admin/system-routes.ts";
import { errorResponse as anthropicErrorResponse, speaksAnthropic } from "./anthropic/errors.ts";
import { anthropicRoutes } from "./anthropic/routes.ts";
import { checkAnnouncedLength } from "./body.ts";
import { createContext, type ServerContext, type ServerSettings } from "./context.ts";
import type { DocumentedRoute } from "./docs/document.ts";
import { docsRoutes } from "./docs/routes.ts";
import { embeddingRoutes } from "./embeddings/routes.ts";
import { type Failure, failureOf, HttpFailure } from "./failure.ts";
import { healthRoutes } from "./health.ts";
import { Lifecycle } from "./lifecycle.ts";
import { allowedMethods, type RouteShape } from "./methods.ts";
import { metricsRoutes } from "./metrics.ts";
import type { ModelRegistry } from "./model-registry.ts";
import { errorResponse } from "./openai/errors.ts";
import { openaiRoutes } from "./openai/routes.ts";
import { type BodyComplaint, bodyFailure } from "./openai/validation.ts";
import { responseRoutes } from "./responses/routes.ts";
import { refuseUnknownFields } from "./strict.ts";
import { tokenizeRoutes } from "./tokenize/routes.ts";

/** Routes that name models without wanting an answer of them. */
const ADMINISTRATION = /^\/v1\/(models|system)\//;

export interface AppOptions {
  readonly models: ModelRegistry;
  readonly settings: ServerSettings;
  /** Given by whoever stops the server; a new one when left out. */
  readonly lifecycle?: Lifecycle;
}

export function createApp(options: AppOptions) {
  const context = createContext(options.models, options.lifecycle ?? new Lifecycle(), options.settings);
  let routes: readonly DocumentedRoute[] = [];
  const bodySchemas = new Map<string, TSchema | undefined>();
  const app = new Elysia({ name: "mistral.ts", normalize: false })
    .onRequest(({ request, set }) => {
      const path = pathOf(request);
      const record = context.records.begin(request, path);
      if (context.requestIdHeader) set.headers["x-request-id"] = record.id;
      Object.assign(set.headers, context.cors.headersFor(request));
      const preflight = context.cors.preflight(request);
      if (preflight !== undefined) return preflight;
      checkHeaders(request.headers);
      checkAnnouncedLength(request);
      record.keyName = requireKey(request, path, context.apiKeys);
      if (context.lifecycle.draining && request.method === "POST") {
        throw new MistralError("shutting_down", "The server is shutting down and takes no new requests.");
      }
    })
    .onError(({ code, error, request, path, route }) => {
      const failure = failureFor(context, routes, { code, error, request, path });
      const record = context.records.of(request);
      if (record !== undefined) {
        record.status = failure.status;
        // What the client did wrong may repeat its text, which is no business of the log.
        record.error ??= failure.status < 500 ? (failure.code ?? "refused") : failure.message;
        if (route !== undefined && route !== "") record.route = route;
      }
      return speaksAnthropic(pathOf(request))
        ? anthropicErrorResponse(failure, record?.id)
        : errorResponse(failure);
    })
    .onBeforeHandle(({ request, route, body, server }) => {
      const record = context.records.of(request);
      if (record === undefined) return;
      record.route = route;
      if (typeof body === "object" && body !== null) {
        record.model = modelNamed(context, body);
        if (context.strict) refuseUnknownFields(body, bodySchemas.get(`${request.method} ${route}`));
      }
      context.records.started(record, body);
      if (request.method !== "POST" || ADMINISTRATION.test(route)) return;
      const waking = context.models.wake(record.model);
      if (waking === undefined) return;
      // A load may take longer than silent connections live.
      server?.timeout(request, 0);
      return waking.then(() => {});
    })
    .onAfterResponse(({ request, set, responseValue }) => {
      const record = context.records.of(request);
      if (record === undefined) return;
      if (record.status === 0) {
        const answer: unknown = responseValue;
        record.status = answer instanceof Response ? answer.status : Number(set.status ?? 200);
        record.streamed = answer instanceof Response && isEventStream(answer);
      }
      context.records.answered(request);
    })
    .use(healthRoutes(context))
    .use(metricsRoutes(context))
    .use(openaiRoutes(context))
    .use(anthropicRoutes(context))
    .use(responseRoutes(context))
    .use(embeddingRoutes(context))
    .use(tokenizeRoutes(context))
    .use(modelStatusRoute(context))
    .use(modelAdministrationRoutes(context))
    .use(systemRoutes(context))
    .use(docsRoutes(() => routes, { strict: context.strict, keys: context.apiKeys !== undefined }));
  routes = app.routes as readonly DocumentedRoute[];
  for (const { method, path, hooks } of routes) bodySchemas.set(`${method} ${path}`, hooks.body);
  return app;
}

/** The type from which the typed client takes its routes. */
export type App = ReturnType<typeof createApp>;

interface Failed {
  readonly code: string | number;
  readonly error: unknown;
  readonly request: Request;
  readonly path: string;
}

function failureFor(
  context: ServerContext,
  routes: readonly RouteShape[],
  { code, error, request, path }: Failed,
): Failure {
  if (code === "NOT_FOUND") return noRoute(routes, request.method, path).failure;
  const thrown = error as { readonly type?: string; readonly cause?: unknown };
  if (code === "VALIDATION" && isOfRequest(thrown.type)) {
    return bodyFailure(error as unknown as BodyComplaint).failure;
  }
  const cause = code === "PARSE" && thrown.cause !== undefined ? thrown.cause : error;
  const failure = failureOf(cause);
  if (failure.unexpected && !request.signal.aborted)
    context.logError(`${request.method} ${path} failed`, cause);
  return failure;
}

/** Whether it is the request whose shape is wrong, and not our answer's. */
function isOfRequest(part: string | undefined): boolean {
  return part === "body" || part === "query" || part === "params";
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

/** The full name of the model that a body means; undefined where there is none of that name. */
function modelNamed(context: ServerContext, body: object): string | undefined {
  const name: unknown = "model" in body ? body.model : "model_id" in body ? body.model_id : undefined;
  return context.models.idOf(typeof name === "string" ? name : undefined);
}

function isEventStream({ headers }: Response): boolean {
  return headers.get("content-type")?.startsWith("text/event-stream") === true;
}

/** Elysia has not looked at the address yet when a request comes in. */
function pathOf({ url }: Request): string {
  const start = url.indexOf("/", url.indexOf("//") + 2);
  if (start < 0) return "/";
  const end = url.indexOf("?", start);
  return end < 0 ? url.slice(start) : url.slice(start, end);
}
