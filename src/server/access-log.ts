/** A line for each request that ends: as text for people, or as JSON with a second line for each that begins. */

import type { RecordWatcher, RequestRecord } from "./request-record.ts";

export interface AccessLogSettings {
  readonly format: "text" | "json";
  /** Whether requests that only ask how the server is get lines too. */
  readonly health: boolean;
  /** Whether the text of prompts is shown. */
  readonly prompts: boolean;
  readonly write: (line: string) => void;
}

const QUIET_ROUTES: ReadonlySet<string> = new Set(["/", "/health", "/ready", "/metrics"]);

export function accessLog(settings: AccessLogSettings): RecordWatcher {
  const wanted = ({ route }: RequestRecord) => settings.health || !QUIET_ROUTES.has(route ?? "");
  if (settings.format === "text") {
    return {
      completed(record) {
        if (wanted(record)) settings.write(textLine(record));
      },
    };
  }
  return {
    started(record) {
      if (wanted(record)) settings.write(JSON.stringify(startedEntry(record)));
    },
    completed(record) {
      if (wanted(record)) settings.write(JSON.stringify(completedEntry(record)));
    },
  };
}

function textLine(record: RequestRecord): string {
  const { usage, prefillSpeed, decodeSpeed } = record;
  const parts = [
    `${record.method} ${printable(record.path)} ${record.status} in ${seconds(record.durationMs)}`,
  ];
  if (record.model !== undefined) parts.push(record.model);
  if (usage !== undefined) {
    const cached = usage.cachedTokens === 0 ? "" : ` (${usage.cachedTokens} cached)`;
    parts.push(`${usage.promptTokens}${cached} + ${usage.completionTokens} tokens`);
  }
  if (prefillSpeed !== undefined) parts.push(`prefill ${prefillSpeed.toFixed(1)} tokens/s`);
  if (decodeSpeed !== undefined) parts.push(`decode ${decodeSpeed.toFixed(1)} tokens/s`);
  if (record.abortCause !== undefined) parts.push(`ended early: ${record.abortCause.replaceAll("_", " ")}`);
  if (record.error !== undefined) parts.push(`failed: ${printable(record.error)}`);
  if (record.keyName !== undefined) parts.push(`key ${record.keyName}`);
  parts.push(record.id);
  if (record.prompt !== undefined) parts.push(`prompt ${JSON.stringify(record.prompt)}`);
  return parts.join(", ");
}

function startedEntry(record: RequestRecord): object {
  return {
    event: "request_started",
    request_id: record.id,
    method: record.method,
    route: record.route ?? "<unmatched>",
    path: record.path,
    content_length: record.contentLength,
  };
}

function completedEntry(record: RequestRecord): object {
  return {
    event: "request_completed",
    request_id: record.id,
    method: record.method,
    route: record.route ?? "<unmatched>",
    model: record.model,
    key: record.keyName,
    status: record.status,
    stream: record.streamed || undefined,
    duration_ms: rounded(record.durationMs),
    outcome: outcomeOf(record),
    abort_cause: record.abortCause,
    prompt_tokens: record.usage?.promptTokens,
    cached_tokens: record.usage?.cachedTokens,
    completion_tokens: record.usage?.completionTokens,
    first_token_ms:
      record.firstTokenMs === undefined ? undefined : rounded(record.firstTokenMs - record.startedMs),
    prefill_tok_s: rounded(record.prefillSpeed),
    decode_tok_s: rounded(record.decodeSpeed),
    error: record.error,
    prompt: record.prompt,
  };
}

export function outcomeOf(record: RequestRecord): "ok" | "error" | "canceled" {
  if (record.abortCause === "client_left" || record.abortCause === "cancelled") return "canceled";
  return record.error !== undefined || record.status >= 400 ? "error" : "ok";
}

function seconds(milliseconds: number): string {
  return milliseconds < 1000 ? `${milliseconds.toFixed(1)} ms` : `${(milliseconds / 1000).toFixed(2)} s`;
}

function rounded(value: number | undefined): number | undefined {
  return value === undefined ? undefined : Math.round(value * 10) / 10;
}

/** On one line, and without what would move a terminal's cursor. */
function printable(text: string): string {
  return text.replace(/[^\x20-\x7e\xa0-\uffff]/g, "?").slice(0, 300);
}
