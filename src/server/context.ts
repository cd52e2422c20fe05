/** What every route shares: the models, the settings, the open requests and the log. Knows no dialect. */

import type { SettingReport } from "../config/explain.ts";
import { type AccessLogSettings, accessLog } from "./access-log.ts";
import type { KeyRing } from "./api-keys.ts";
import { CorsPolicy } from "./cors.ts";
import { httpMetrics } from "./http-metrics.ts";
import type { Lifecycle } from "./lifecycle.ts";
import { LIMITS } from "./limits.ts";
import { Metrics } from "./metrics.ts";
import type { ModelRegistry } from "./model-registry.ts";
import { requestLog } from "./request-log.ts";
import { type RecordWatcher, RequestRecords } from "./request-record.ts";

export interface ServerSettings {
  /** Silence on a stream after which a comment is sent (KEEP_ALIVE_INTERVAL). */
  readonly keepAliveIntervalMs: number;
  /** Unread bytes after which a stream's client counts as gone; by default LIMITS.streamBacklogBytes. */
  readonly streamBacklogBytes?: number;
  /** Receives warnings and unexpected errors; by default the standard error stream. */
  readonly log?: (level: "warning" | "error", message: string, cause?: unknown) => void;
  /** Longest life of a request; 0, the default, is no limit. */
  readonly requestTimeoutMs?: number;
  /** Whether unknown fields are refused instead of warned about. */
  readonly strict?: boolean;
  /** Without them everyone is served, and administration is for this machine only. */
  readonly apiKeys?: KeyRing;
  /** None by default. */
  readonly cors?: CorsPolicy;
  /** None by default. */
  readonly accessLog?: AccessLogSettings;
  /** Whether answers carry `x-request-id`; they do by default. */
  readonly requestIdHeader?: boolean;
  /** Whether /metrics answers; it does by default. */
  readonly metrics?: boolean;
  /** Traces what ends; nothing by default. */
  readonly tracing?: RecordWatcher;
  /** Takes whole requests and answers, texts included; nobody by default. */
  readonly requestLog?: (block: string) => void;
  /** The configuration in force, for the administrator; not told by default. */
  readonly describeSettings?: () => readonly SettingReport[];
}

export interface ServerContext {
  readonly models: ModelRegistry;
  readonly lifecycle: Lifecycle;
  readonly records: RequestRecords;
  /** Undefined where they are switched off. */
  readonly metrics: Metrics | undefined;
  readonly keepAliveIntervalMs: number;
  readonly streamBacklogBytes: number;
  readonly strict: boolean;
  readonly apiKeys: KeyRing | undefined;
  readonly cors: CorsPolicy;
  readonly requestIdHeader: boolean;
  readonly describeSettings: ServerSettings["describeSettings"];
  logError(message: string, cause: unknown): void;
  /** Logs each distinct message once in the life of the server. */
  warnOnce(message: string): void;
}

export function createContext(
  models: ModelRegistry,
  lifecycle: Lifecycle,
  settings: ServerSettings,
): ServerContext {
  const log = settings.log ?? ((level, message, cause) => console.error(`${level}: ${message}`, cause ?? ""));
  const warned = new Set<string>();
  const records = new RequestRecords({
    keepPrompts: settings.accessLog?.prompts ?? false,
    keepTexts: settings.requestLog !== undefined,
  });
  if (settings.requestLog !== undefined) records.watch(requestLog(settings.requestLog));
  if (settings.accessLog !== undefined) records.watch(accessLog(settings.accessLog));
  if (settings.tracing !== undefined) records.watch(settings.tracing);
  const metrics = settings.metrics === false ? undefined : new Metrics(models);
  if (metrics !== undefined) records.watch(httpMetrics(metrics.registry));
  lifecycle.configure(settings.requestTimeoutMs ?? 0, records);
  return {
    models,
    lifecycle,
    records,
    metrics,
    keepAliveIntervalMs: settings.keepAliveIntervalMs,
    streamBacklogBytes: settings.streamBacklogBytes ?? LIMITS.streamBacklogBytes,
    strict: settings.strict ?? false,
    apiKeys: settings.apiKeys,
    cors: settings.cors ?? new CorsPolicy([]),
    requestIdHeader: settings.requestIdHeader ?? true,
    describeSettings: settings.describeSettings,
    logError: (message, cause) => log("error", message, cause),
    warnOnce(message) {
      if (warned.has(message) || warned.size >= LIMITS.rememberedWarnings) return;
      warned.add(message);
      log("warning", message);
    },
  };
}
