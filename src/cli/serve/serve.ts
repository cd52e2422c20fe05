/**
 * `serve`: resolves the models, loads each in an engine process while this process loads tokenizer, chat template and
 * the HTTP server, then listens. Everything slow runs beside the engines' load.
 */

import { explainSettings, reportSettings } from "../../config/explain.ts";
import type { Resolution } from "../../config/resolve.ts";
import type { Settings } from "../../config/settings.ts";
import { showSource } from "../../config/sources.ts";
import type { ProcessEngine } from "../../engine/engine-client.ts";
import { collectWhenIdle } from "../../engine/idle-collection.ts";
import { MistralError } from "../../errors.ts";
import type { RunningServer } from "../../server/listen.ts";
import type { ModelRegistry } from "../../server/model-registry.ts";
import { type Log, openLog } from "../log.ts";
import { cacheTypeOf } from "../runner-options.ts";
import { formatDuration } from "../units.ts";
import type { LoadedServedModel } from "./load-model.ts";
import { ModelFleet } from "./model-fleet.ts";
import { exposureWarning, serverSettings, tlsFiles, tracingOf } from "./server-settings.ts";
import { exitOnSignals, exitWhenUseless, type ShutdownTargets } from "./shutdown.ts";
import { addressReport, modelReport } from "./start-report.ts";

const STATISTICS_INTERVAL_MS = 1_000;
const IDLE_LOOK_MAX_MS = 10_000;
/** Connections on which nothing moves are closed; requests in progress are exempt. */
const IDLE_TIMEOUT_SECONDS = 120;

/** Resolves when the server answers; the process then goes on until a signal. Throws MistralError. */
export async function serve(resolution: Resolution): Promise<void> {
  const { settings, warnings } = resolution;
  const log = openLog(settings);
  for (const warning of warnings) log.write("warning", warning);
  logSettings(resolution, log);
  const targets: ShutdownTargets = {};
  exitOnSignals(targets, settings.shutdownTimeoutSeconds, log);

  requireFreeAddress(settings.host, settings.port);
  const forServer = serverSettings(settings, log);
  const tls = tlsFiles(settings);
  let models: ModelRegistry | undefined;
  const fleet = new ModelFleet(resolution, log, () =>
    exitWhenUseless(
      models?.available().map(({ engine }) => engine.state),
      log,
    ),
  );
  const loading = fleet.start();
  // Its failure is thrown where it is awaited; until then it must not count as unhandled.
  loading.catch(() => {});
  const [{ startServer }, registry, tracing] = await Promise.all([
    import("../../server/listen.ts"),
    import("../../server/model-registry.ts"),
    tracingOf(settings, log),
  ]);
  const { loaded, asleep, sources } = await loading;
  const served = new registry.ModelRegistry(
    loaded.map((model) => model.served),
    { sources, asleep, load: (source) => fleet.load(source) },
  );
  models = served;
  targets.closeEngine = async () => {
    await Promise.all([served.close(), tracing?.close()]);
  };
  if (settings.idleUnloadSeconds > 0) unloadIdle(served, settings.idleUnloadSeconds * 1000, log);
  const server = startServer({
    hostname: settings.host,
    port: settings.port,
    models: served,
    settings: {
      ...forServer,
      describeSettings: () => reportSettings("serve", resolution),
      ...(tracing === undefined ? {} : { tracing: tracing.watcher }),
    },
    idleTimeoutSeconds: IDLE_TIMEOUT_SECONDS,
    ...(tls === undefined ? {} : { tls }),
  });
  targets.server = server;
  collectWhenIdle(() => (server.openRequests > 0 ? null : stepsOf(served)));
  report(settings, loaded, server, log);
  const warning = exposureWarning(settings, forServer);
  if (warning !== undefined) log.write("warning", warning);
}

/** Steps that all engines have taken. */
function stepsOf(models: ModelRegistry): number {
  return models.list().reduce((sum, { engine }) => sum + engine.statistics().steps, 0);
}

/** Loading can take long; an address in use is said before it. */
function requireFreeAddress(hostname: string, port: number): void {
  if (port === 0) return;
  try {
    Bun.listen({ hostname, port, socket: { data() {} } }).stop(true);
  } catch (cause) {
    throw new MistralError(
      "invalid_configuration",
      `cannot listen on ${hostname}:${port}: ${(cause as Error).message}. Stop the process that uses it or choose another with --port`,
      { parameter: "--port", cause },
    );
  }
}

/** What is in force; of what does not exist yet only what was set all the same. */
function logSettings(resolution: Resolution, log: Log): void {
  if (!log.enabled("debug")) return;
  const rows = explainSettings("serve", resolution)
    .filter(({ isSet, declaration }) => isSet || declaration.notBuilt === undefined)
    .map(({ key, value, source }) => [key, `${value} (${showSource(source)})`] as const);
  log.table("debug", rows);
}

function report(
  settings: Settings,
  loaded: readonly LoadedServedModel[],
  server: RunningServer,
  log: Log,
): void {
  for (const { served, resolved, engine, chatTemplateFrom } of loaded) {
    const facts = {
      id: served.id,
      resolved,
      chatTemplateFrom,
      engine: engine.info,
      cacheType: cacheTypeOf(settings),
      mapped: !settings.noMmap,
    };
    log.table("info", modelReport(facts));
    if (log.enabled("trace")) logStatistics(engine, log);
  }
  const { host } = settings;
  const loadSeconds = loaded.reduce((sum, { engine }) => sum + engine.info.loadSeconds, 0);
  const readySeconds = performance.now() / 1000;
  log.table("info", addressReport({ url: server.url, host, port: server.port, readySeconds, loadSeconds }));
}

/** Looks often enough that a model goes little later than it may. */
function unloadIdle(models: ModelRegistry, idleMs: number, log: Log): void {
  const look = async (): Promise<void> => {
    for (const id of await models.sleepIdle(idleMs)) {
      log.write(
        "info",
        `${id} was not used for ${formatDuration(idleMs / 1000)} and is unloaded until a request comes`,
      );
    }
  };
  setInterval(() => void look(), Math.min(idleMs / 4, IDLE_LOOK_MAX_MS)).unref();
}

/** One line a second while something happens. */
function logStatistics(engine: ProcessEngine, log: Log): void {
  let last = "";
  setInterval(() => {
    const line = JSON.stringify(engine.statistics());
    if (line !== last) log.write("trace", line);
    last = line;
  }, STATISTICS_INTERVAL_MS).unref();
}
