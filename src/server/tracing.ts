/**
 * A trace of each request for OpenTelemetry: a span for the request, and within it one for each of waiting, prefill
 * and decoding. Made of the record when the request is over, so that a request pays nothing while it runs; sent in
 * batches over OTLP. Nothing else imports this module statically: a server without tracing does not load the library.
 */

import {
  type Attributes,
  type Context,
  createTraceState,
  isSpanContextValid,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  TraceFlags,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { defaultResource, resourceFromAttributes } from "@opentelemetry/resources";
import {
  AlwaysOnSampler,
  BatchSpanProcessor,
  ParentBasedSampler,
  type SpanExporter,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import { outcomeOf } from "./access-log.ts";
import { isRoutine } from "./http-metrics.ts";
import type { RecordWatcher, RequestRecord } from "./request-record.ts";

export interface TracingOptions {
  /** Where the collector listens; traces go to `v1/traces` below it. */
  readonly endpoint: string;
  /** Sent with every batch, such as a collector's key. */
  readonly headers: Readonly<Record<string, string>>;
  readonly serviceName: string;
  /** Told when batches begin to be refused, and of nothing more until one is taken again. */
  readonly warn: (message: string) => void;
}

export interface Tracing {
  readonly watcher: RecordWatcher;
  /** Sends what is left, as far as it is taken soon. Never fails. */
  close(): Promise<void>;
}

/** The exporter tries again for many seconds, which is no reason to go on living. */
const FAREWELL_MS = 2_000;
const PROVIDER = "mistral.ts";
/** The kinds of work that the conventions for generative AI name. */
const OPERATIONS: Readonly<Record<string, string>> = {
  "/v1/chat/completions": "chat",
  "/v1/messages": "chat",
  "/v1/responses": "chat",
  "/v1/completions": "text_completion",
  "/v1/embeddings": "embeddings",
};
const TRACE_PARENT = /^(?!ff)[\da-f]{2}-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(?:-.*)?$/;

/** Begins to trace; the collector need not be there. */
export function openTracing(options: TracingOptions): Tracing {
  const url = `${options.endpoint.replace(/\/+$/, "")}/v1/traces`;
  const exporter = new OTLPTraceExporter({ url, headers: { ...options.headers } });
  const provider = new TracerProvider({
    resource: defaultResource().merge(resourceFromAttributes({ "service.name": options.serviceName })),
    sampler: new ParentBasedSampler({ root: new AlwaysOnSampler() }),
    spanProcessors: [new BatchSpanProcessor({ exporter: watched(exporter, url, options.warn) })],
  });
  const tracer = provider.getTracer(PROVIDER);
  return {
    watcher: {
      completed(record) {
        if (!isRoutine(record)) traceRequest(tracer, record);
      },
    },
    close: () => Promise.race([provider.shutdown().catch(() => {}), Bun.sleep(FAREWELL_MS)]),
  };
}

/** The library tells nobody when a collector takes nothing. */
function watched(exporter: SpanExporter, url: string, warn: (message: string) => void): SpanExporter {
  let failing = false;
  return {
    export(spans, done) {
      exporter.export(spans, (result) => {
        const { error } = result;
        if (error !== undefined && !failing) warn(`traces cannot be sent to ${url}: ${error.message}`);
        failing = error !== undefined;
        done(result);
      });
    },
    shutdown: () => exporter.shutdown(),
    forceFlush: () => exporter.forceFlush?.() ?? Promise.resolve(),
  };
}

function traceRequest(tracer: Tracer, record: RequestRecord): void {
  const { method, route, status, startedMs, submittedMs, queueSeconds, firstTokenMs, lastTokenMs } = record;
  const span = tracer.startSpan(
    route === undefined ? method : `${method} ${route}`,
    { kind: SpanKind.SERVER, startTime: timeOf(startedMs), attributes: attributesOf(record) },
    parentOf(record),
  );
  const within = trace.setSpan(ROOT_CONTEXT, span);
  const phase = (name: string, fromMs: number | undefined, toMs: number | undefined): void => {
    if (fromMs === undefined || toMs === undefined) return;
    tracer.startSpan(name, { startTime: timeOf(fromMs) }, within).end(timeOf(Math.max(fromMs, toMs)));
  };
  const admittedMs =
    submittedMs === undefined || queueSeconds === undefined ? undefined : submittedMs + queueSeconds * 1000;
  phase("queue", submittedMs, admittedMs);
  phase("prefill", admittedMs, firstTokenMs);
  phase("decode", firstTokenMs, lastTokenMs);
  if (status >= 500 || (outcomeOf(record) === "error" && status < 400)) fail(span, record);
  span.end(timeOf(record.endedMs ?? startedMs));
}

/** What a client did wrong is no error of the server. */
function fail(span: Span, { error, abortCause }: RequestRecord): void {
  const message = error ?? abortCause;
  span.setStatus({ code: SpanStatusCode.ERROR, ...(message === undefined ? {} : { message }) });
}

/** Named by the semantic conventions for HTTP and for generative AI; no text of prompts or answers. */
function attributesOf(record: RequestRecord): Attributes {
  const { method, path, route, status, model, usage, abortCause, error } = record;
  const attributes: Attributes = {
    "http.request.method": method,
    "http.response.status_code": status,
    "http.response.header.x-request-id": [record.id],
    "url.path": path,
  };
  if (route !== undefined) attributes["http.route"] = route;
  const operation = OPERATIONS[route ?? ""];
  if (operation !== undefined) {
    attributes["gen_ai.operation.name"] = operation;
    attributes["gen_ai.provider.name"] = PROVIDER;
  }
  if (model !== undefined) attributes["gen_ai.request.model"] = model;
  if (usage !== undefined) {
    attributes["gen_ai.usage.input_tokens"] = usage.promptTokens;
    attributes["gen_ai.usage.output_tokens"] = usage.completionTokens;
    attributes["gen_ai.usage.cache_read.input_tokens"] = usage.cachedTokens;
  }
  if (record.streamed) attributes["gen_ai.request.stream"] = true;
  if (abortCause !== undefined) attributes["error.type"] = abortCause;
  else if (status >= 400) attributes["error.type"] = String(status);
  else if (error !== undefined) attributes["error.type"] = "_OTHER";
  return attributes;
}

/** The caller's span, by the W3C's `traceparent`; a malformed one begins a new trace, as the standard has it. */
function parentOf({ traceParent, traceState }: RequestRecord): Context {
  const [, traceId = "", spanId = "", flags = ""] = TRACE_PARENT.exec(traceParent ?? "") ?? [];
  const parent = {
    traceId,
    spanId,
    traceFlags: Number.parseInt(flags, 16) & TraceFlags.SAMPLED,
    isRemote: true,
    ...(traceState === undefined ? {} : { traceState: createTraceState(traceState) }),
  };
  return isSpanContextValid(parent) ? trace.setSpanContext(ROOT_CONTEXT, parent) : ROOT_CONTEXT;
}

/** Records count from the start of the process, traces from 1970. */
function timeOf(milliseconds: number): number {
  return performance.timeOrigin + milliseconds;
}
