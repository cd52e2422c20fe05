/** Figures of engines: the empty ones, and the sum over the lives of an engine whose process was started again. */

import type { EngineStatistics } from "./messages.ts";

/** What an engine that never ran has to tell. */
export const NO_STATISTICS: EngineStatistics = {
  running: 0,
  waiting: 0,
  pending: 0,
  blocksUsed: 0,
  blocksTotal: 0,
  silentSeconds: 0,
  steps: 0,
  promptTokens: 0,
  generatedTokens: 0,
  preemptions: 0,
  prefixCacheQueries: 0,
  prefixCacheHits: 0,
  prefixCacheEvictions: 0,
  endedStop: 0,
  endedLength: 0,
  endedAbort: 0,
  endedError: 0,
  refusedTooLong: 0,
  refusedInvalid: 0,
  refusedQueueFull: 0,
  refusedQueueTimeout: 0,
  restarts: 0,
  hangs: 0,
};

/** Figures that tell of now; all others only ever grow. */
const GAUGES: ReadonlySet<keyof EngineStatistics> = new Set([
  "running",
  "waiting",
  "pending",
  "blocksUsed",
  "blocksTotal",
  "silentSeconds",
] as const);

/** The figures of `now`, its counters raised by those of `before`. */
export function continueStatistics(before: EngineStatistics, now: EngineStatistics): EngineStatistics {
  const sum: Record<string, number> = { ...now };
  for (const key of Object.keys(now) as (keyof EngineStatistics)[]) {
    if (!GAUGES.has(key)) sum[key] = before[key] + now[key];
  }
  return sum as unknown as EngineStatistics;
}
