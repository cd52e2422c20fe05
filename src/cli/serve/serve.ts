/**
 * `serve`: resolves the model, loads it in an engine process while this process loads tokenizer, chat template and
 * the HTTP server, then listens. Everything slow runs beside the engine's load.
 */

import { showValue } from "../../config/parse-value.ts";
import type { Resolution } from "../../config/resolve.ts";
import { type Settings, settingEntries } from "../../config/settings.ts";
import { showSource } from "../../config/sources.ts";
import type { ProcessEngine } from "../../engine/engine-client.ts";
import { MistralError } from "../../errors.ts";
import type { RunningServer } from "../../server/listen.ts";
import type { ModelRegistry } from "../../server/model-registry.ts";
import type { ResolvedModel } from "../../weights/resolve.ts";
import { Log } from "../log.ts";
import { loadServedModel } from "./load-model.ts";
import { exposureWarning, serverSettings, tlsFiles } from "./server-settings.ts";
import { exitOnSignals, exitWhenUseless, type ShutdownTargets } from "./shutdown.ts";
import { startReport } from "./start-report.ts";

const STATISTICS_INTERVAL_MS = 1_000;
/** Connections on which nothing moves are closed; requests in progress are exempt. */
const IDLE_TIMEOUT_SECONDS = 120;

/** Resolves when the server answers; the process then goes on until a signal. Throws MistralError. */
export async function serve(resolution: Resolution): Promise<void> {
  const { settings, warnings } = resolution;
  const log = new Log(settings.verbosity);
  for (const warning of warnings) log.write("warning", warning);
  logSettings(resolution, log);
  const targets: ShutdownTargets = {};
  exitOnSignals(targets, settings.shutdownTimeoutSeconds, log);

  requireFreeAddress(settings.host, settings.port);
  const forServer = serverSettings(settings, log);
  const tls = tlsFiles(settings);
  const onEngineFailed = () =>
    exitWhenUseless(
      models?.list().map(({ engine }) => engine.state),
      log,
    );
  let models: ModelRegistry | undefined;
  const loading = loadServedModel(settings, log, onEngineFailed);
  // Its failure is thrown where it is awaited; until then it must not count as unhandled.
  loading.catch(() => {});
  const [{ startServer }, registry] = await Promise.all([
    import("../../server/listen.ts"),
    import("../../server/model-registry.ts"),
  ]);
  const loaded = await loading;
  const served = new registry.ModelRegistry([loaded.served], {
    sources: { [loaded.served.id]: { model: settings.model, file: settings.file } },
    load: async (source) => (await loadServedModel({ ...settings, ...source }, log, onEngineFailed)).served,
  });
  models = served;
  targets.closeEngine = () => served.close();
  const server = startServer({
    hostname: settings.host,
    port: settings.port,
    models: served,
    settings: forServer,
    idleTimeoutSeconds: IDLE_TIMEOUT_SECONDS,
    ...(tls === undefined ? {} : { tls }),
  });
  targets.server = server;
  report({ settings, server, ...loaded }, log);
  const warning = exposureWarning(settings, forServer);
  if (warning !== undefined) log.write("warning", warning);
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

function logSettings({ settings, sources }: Resolution, log: Log): void {
  if (!log.enabled("debug")) return;
  const rows = settingEntries()
    .filter(([, { commands }]) => commands.includes("serve"))
    .map(([key, declaration]) => {
      return [key, `${showValue(declaration, settings[key])} (${showSource(sources[key])})`] as const;
    });
  log.table("debug", rows);
}

interface Started {
  readonly settings: Settings;
  readonly resolved: ResolvedModel;
  readonly engine: ProcessEngine;
  readonly server: RunningServer;
  readonly chatTemplateFrom: string;
}

function report({ settings, resolved, engine, server, chatTemplateFrom }: Started, log: Log): void {
  const facts = {
    resolved,
    chatTemplateFrom,
    engine: engine.info,
    cacheType: settings.cacheType === "auto" ? "f16" : settings.cacheType,
    mapped: !settings.noMmap,
    url: server.url,
    host: settings.host,
    port: server.port,
    readySeconds: performance.now() / 1000,
  };
  log.table("info", startReport(facts));
  if (log.enabled("trace")) logStatistics(engine, log);
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
