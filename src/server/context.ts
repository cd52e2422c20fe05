/** What every route shares: the models, the settings, the open requests and the log. Knows no dialect. */

import type { Lifecycle } from "./lifecycle.ts";
import { LIMITS } from "./limits.ts";
import type { ModelRegistry } from "./served-model.ts";

export interface ServerSettings {
  /** Silence on a stream after which a comment is sent (KEEP_ALIVE_INTERVAL). */
  readonly keepAliveIntervalMs: number;
  /** Unread bytes after which a stream's client counts as gone; by default LIMITS.streamBacklogBytes. */
  readonly streamBacklogBytes?: number;
  /** Receives warnings and unexpected errors; by default the standard error stream. */
  readonly log?: (level: "warning" | "error", message: string, cause?: unknown) => void;
}

export interface ServerContext {
  readonly models: ModelRegistry;
  readonly lifecycle: Lifecycle;
  readonly keepAliveIntervalMs: number;
  readonly streamBacklogBytes: number;
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
  return {
    models,
    lifecycle,
    keepAliveIntervalMs: settings.keepAliveIntervalMs,
    streamBacklogBytes: settings.streamBacklogBytes ?? LIMITS.streamBacklogBytes,
    logError: (message, cause) => log("error", message, cause),
    warnOnce(message) {
      if (warned.has(message) || warned.size >= LIMITS.rememberedWarnings) return;
      warned.add(message);
      log("warning", message);
    },
  };
}
