/**
 * Figures for Prometheus, under mistral.rs's names. What engines count is read from them when somebody asks, so that a
 * step costs nothing for it; the figures of all models are added up.
 */

import { Elysia } from "elysia";
import { Counter, Gauge, Registry } from "prom-client";
import type { EngineStatistics } from "../engine/messages.ts";
import type { ServerContext } from "./context.ts";
import { HttpFailure } from "./failure.ts";
import type { ModelRegistry } from "./model-registry.ts";

interface EngineFigure {
  readonly name: string;
  readonly help: string;
  /** What `statistics` say, by the value of the one label; the empty text where there is no label. */
  readonly values: Readonly<Record<string, (statistics: EngineStatistics) => number>>;
  readonly label?: string;
}

const plain = (value: (statistics: EngineStatistics) => number) => ({ "": value });

const GAUGES: readonly EngineFigure[] = [
  {
    name: "mistralrs_sequences_running",
    help: "Sequences that take part in steps",
    values: plain(({ running }) => running),
  },
  {
    name: "mistralrs_sequences_waiting",
    help: "Sequences that wait for room, preempted ones included",
    values: plain(({ waiting }) => waiting),
  },
  {
    name: "mistralrs_requests_pending_admission",
    help: "Requests on their way to an engine that has not seen them yet",
    values: plain(({ pending }) => pending),
  },
  {
    name: "mistralrs_kv_cache_blocks_used",
    help: "KV cache blocks that sequences hold",
    values: plain(({ blocksUsed }) => blocksUsed),
  },
  {
    name: "mistralrs_kv_cache_blocks_total",
    help: "KV cache blocks there are",
    values: plain(({ blocksTotal }) => blocksTotal),
  },
];

const COUNTERS: readonly EngineFigure[] = [
  {
    name: "mistralrs_tokens_processed_total",
    help: "Tokens computed: prompts, less what the prefix cache held, and generated ones",
    values: plain(({ promptTokens, generatedTokens }) => promptTokens + generatedTokens),
  },
  {
    name: "mistralrs_prefix_cache_lookups_total",
    help: "Admissions that looked for a cached prefix",
    values: plain(({ prefixCacheQueries }) => prefixCacheQueries),
  },
  {
    name: "mistralrs_prefix_cache_hits_total",
    help: "Admissions that found a cached prefix",
    values: plain(({ prefixCacheHits }) => prefixCacheHits),
  },
  {
    name: "mistralrs_prefix_cache_evictions_total",
    help: "Cached blocks that were overwritten",
    values: plain(({ prefixCacheEvictions }) => prefixCacheEvictions),
  },
  {
    name: "mistralrs_sequences_completed_total",
    help: "Sequences that ended, by how",
    label: "reason",
    values: {
      stop: ({ endedStop }) => endedStop,
      length: ({ endedLength }) => endedLength,
      canceled: ({ endedAbort }) => endedAbort,
      error: ({ endedError }) => endedError,
    },
  },
  {
    name: "mistralrs_sequences_rejected_total",
    help: "Requests that never ran, by why",
    label: "reason",
    values: {
      over_total_capacity: ({ refusedTooLong }) => refusedTooLong,
      invalid: ({ refusedInvalid }) => refusedInvalid,
      queue_full: ({ refusedQueueFull }) => refusedQueueFull,
      queue_timeout: ({ refusedQueueTimeout }) => refusedQueueTimeout,
    },
  },
  {
    name: "mistralrs_paged_preemptions_total",
    help: "Sequences that lost their blocks to others and were computed again",
    values: plain(({ preemptions }) => preemptions),
  },
  {
    name: "mistralrs_engine_steps_total",
    help: "Steps that engines have taken",
    values: plain(({ steps }) => steps),
  },
  {
    name: "mistralrs_engine_restarts_total",
    help: "Engine processes that were started again after a failure",
    values: plain(({ restarts }) => restarts),
  },
  {
    name: "mistralrs_engine_hangs_total",
    help: "Engine processes that were ended because they gave no sign of life",
    values: plain(({ hangs }) => hangs),
  },
];

export class Metrics {
  readonly registry = new Registry();

  constructor(models: ModelRegistry) {
    const registers = [this.registry];
    const total = (value: (statistics: EngineStatistics) => number): number =>
      models.entries().reduce((sum, { model }) => sum + value(model.engine.statistics()), 0);
    for (const { name, help, values } of GAUGES) {
      const collect = function (this: Gauge): void {
        this.set(total(values[""]!));
      };
      new Gauge({ name, help, registers, collect });
    }
    for (const { name, help, values, label } of COUNTERS) {
      const collect = function (this: Counter): void {
        // The engines do the counting; a counter of this library can only be raised.
        this.reset();
        for (const [text, value] of Object.entries(values)) {
          if (label === undefined) this.inc(total(value));
          else this.inc({ [label]: text }, total(value));
        }
      };
      new Counter({ name, help, registers, collect, labelNames: label === undefined ? [] : [label] });
    }
    const loaded = () => models.list().map(({ engine }) => engine);
    new Gauge({
      name: "mistralrs_sequences_capacity",
      help: "Sequences that can run at the same time",
      registers,
      collect() {
        this.set(loaded().reduce((sum, { info }) => sum + info.sequencesMax, 0));
      },
    });
    new Gauge({
      name: "mistralrs_engines_ready",
      help: "Engines that take requests",
      registers,
      collect() {
        this.set(loaded().filter(({ state }) => state === "ready").length);
      },
    });
    new Gauge({
      name: "mistralrs_engine_silent_seconds",
      help: "Age of the oldest last sign of life among engines with work; the watchdog ends those that stay silent",
      registers,
      collect() {
        this.set(Math.max(0, ...loaded().map((engine) => engine.statistics().silentSeconds)));
      },
    });
  }
}

export function metricsRoutes({ metrics }: Pick<ServerContext, "metrics">) {
  return new Elysia({ name: "metrics", normalize: false }).get(
    "/metrics",
    async () => {
      if (metrics === undefined) {
        throw new HttpFailure(503, "Metrics are switched off (--disable-metrics).", {
          code: "metrics_disabled",
        });
      }
      const { registry } = metrics;
      return new Response(await registry.metrics(), { headers: { "content-type": registry.contentType } });
    },
    {
      detail: {
        tags: ["Server"],
        summary: "Figures for Prometheus",
        responses: {
          200: {
            description: "Prometheus' text format.",
            content: { "text/plain": { schema: { type: "string" } } },
          },
        },
      },
    },
  );
}
