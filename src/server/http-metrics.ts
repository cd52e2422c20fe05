/** Figures about requests for Prometheus, under mistral.rs's names: how many, how long, how soon, and why they ended. */

import { Counter, Gauge, Histogram, type Registry } from "prom-client";
import type { RecordWatcher, RequestRecord } from "./request-record.ts";

const DURATION_SECONDS = [
  0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200,
];
const KIB = 1024;
const MIB = 1024 * KIB;
const BODY_BYTES = [
  128,
  512,
  KIB,
  4 * KIB,
  16 * KIB,
  64 * KIB,
  256 * KIB,
  MIB,
  4 * MIB,
  16 * MIB,
  50 * MIB,
  100 * MIB,
];
const FIRST_TOKEN_SECONDS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640,
  2560,
];
const BETWEEN_TOKENS_SECONDS = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];

const QUEUE_SECONDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600];

/** Times between tokens of one request that are told to the histogram together. */
const GATHERED_MAX = 256;

/** Asked by machines every few seconds; they would drown the rest. */
const LEFT_OUT: ReadonlySet<string> = new Set([
  "/",
  "/health",
  "/ready",
  "/metrics",
  "/docs",
  "/api-doc/openapi.json",
]);

const PLACE = ["method", "path", "model"] as const;
const OUTCOME = [...PLACE, "status"] as const;

/** Whether figures and traces leave the request out. */
export function isRoutine({ route, method }: RequestRecord): boolean {
  return LEFT_OUT.has(route ?? "") || method === "OPTIONS";
}

export function httpMetrics(registry: Registry): RecordWatcher {
  const registers = [registry];
  const requests = new Counter({
    name: "http_requests_total",
    help: "Requests that were answered",
    labelNames: OUTCOME,
    registers,
  });
  const durations = new Histogram({
    name: "http_request_duration_seconds",
    help: "From a request to the end of its answer, streams included",
    labelNames: OUTCOME,
    buckets: DURATION_SECONDS,
    registers,
  });
  const inFlight = new Gauge({
    name: "http_requests_in_flight",
    help: "Requests whose answer is not complete",
    labelNames: PLACE,
    registers,
  });
  const bodies = new Histogram({
    name: "http_request_body_bytes",
    help: "Size of request bodies as announced",
    labelNames: PLACE,
    buckets: BODY_BYTES,
    registers,
  });
  const firstTokens = new Histogram({
    name: "mistralrs_time_to_first_token_seconds",
    help: "From a request to the first token of its streamed answer",
    labelNames: OUTCOME,
    buckets: FIRST_TOKEN_SECONDS,
    registers,
  });
  const betweenTokens = new Histogram({
    name: "mistralrs_inter_token_latency_seconds",
    help: "Between the tokens of a streamed answer; tokens of one step count once",
    labelNames: OUTCOME,
    buckets: BETWEEN_TOKENS_SECONDS,
    registers,
    collect: () => {
      for (const [record, seconds] of gathered) tellBetween(record, seconds);
    },
  });
  /** Times between tokens that the histogram was not told yet: at every token it would cost more than the token. */
  const gathered = new Map<RequestRecord, number[]>();
  const tellBetween = (record: RequestRecord, seconds: number[]): void => {
    const outcome = { ...placeOf(record), status: "200" };
    for (const each of seconds) betweenTokens.observe(outcome, each);
    seconds.length = 0;
  };
  const queueTimes = new Histogram({
    name: "mistralrs_queue_time_seconds",
    help: "From handing a sequence to the engine to its first step",
    labelNames: PLACE,
    buckets: QUEUE_SECONDS,
    registers,
  });
  const cachedTokens = new Counter({
    name: "mistralrs_prompt_tokens_cached_total",
    help: "Prompt tokens that came out of the prefix cache",
    registers,
  });
  const aborted = new Counter({
    name: "mistralrs_requests_aborted_total",
    help: "Requests that were ended before their answer was complete, by why",
    labelNames: ["cause"],
    registers,
  });

  /** Requests counted as in flight, with the labels they were counted under. */
  const counted = new WeakMap<RequestRecord, Record<(typeof PLACE)[number], string>>();
  return {
    started(record) {
      if (LEFT_OUT.has(record.route ?? "")) return;
      const place = placeOf(record);
      counted.set(record, place);
      inFlight.inc(place);
    },
    queued(record, seconds) {
      queueTimes.observe(placeOf(record), seconds);
    },
    tokens(record, sinceLastMs) {
      if (!record.streamed) return;
      let seconds = gathered.get(record);
      if (seconds === undefined) {
        seconds = [];
        gathered.set(record, seconds);
      }
      seconds.push(sinceLastMs / 1000);
      if (seconds.length >= GATHERED_MAX) tellBetween(record, seconds);
    },
    completed(record) {
      const seconds = gathered.get(record);
      if (seconds !== undefined) {
        tellBetween(record, seconds);
        gathered.delete(record);
      }
      if (isRoutine(record)) return;
      const place = counted.get(record);
      if (place !== undefined) inFlight.dec(place);
      const outcome = { ...placeOf(record), status: String(record.status) };
      requests.inc(outcome);
      durations.observe(outcome, record.durationMs / 1000);
      if (record.contentLength !== undefined) bodies.observe(placeOf(record), record.contentLength);
      if (record.streamed && record.firstTokenMs !== undefined)
        firstTokens.observe(outcome, (record.firstTokenMs - record.startedMs) / 1000);
      if (record.usage !== undefined) cachedTokens.inc(record.usage.cachedTokens);
      if (record.abortCause !== undefined) aborted.inc({ cause: record.abortCause });
    },
  };
}

/** The route's pattern and the model's own name: what a client makes up never becomes a label. */
function placeOf({ method, route, model }: RequestRecord): Record<(typeof PLACE)[number], string> {
  return { method: knownMethod(method), path: route ?? "<unmatched>", model: model ?? "none" };
}

function knownMethod(method: string): string {
  return ["GET", "POST", "PUT", "DELETE", "HEAD", "PATCH"].includes(method) ? method : "other";
}
