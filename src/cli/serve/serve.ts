/**
 * `serve`: resolves the model, loads it in an engine process while this process loads tokenizer, chat template and
 * the HTTP server, then listens. Everything slow runs beside the engine's load.
 */

import { showValue } from "../../config/parse-value.ts";
import type { Resolution } from "../../config/resolve.ts";
import { showSource } from "../../config/resolve.ts";
import { type Settings, settingEntries } from "../../config/settings.ts";
import { ProcessEngine } from "../../engine/engine-client.ts";
import { MistralError } from "../../errors.ts";
import type { RunningServer } from "../../server/listen.ts";
import type { ServedModel } from "../../server/served-model.ts";
import type { ResolvedModel } from "../../weights/resolve.ts";
import { fetchModel } from "../fetch-model.ts";
import { Log } from "../log.ts";
import { runnerOptions } from "../runner-options.ts";
import { exitOnSignals, type ShutdownTargets } from "./shutdown.ts";
import { startReport } from "./start-report.ts";

const STATISTICS_INTERVAL_MS = 1_000;

/** Resolves when the server answers; the process then goes on until a signal. Throws MistralError. */
export async function serve(resolution: Resolution): Promise<void> {
  const { settings, warnings } = resolution;
  const log = new Log(settings.verbosity);
  for (const warning of warnings) log.write("warning", warning);
  logSettings(resolution, log);
  const targets: ShutdownTargets = {};
  exitOnSignals(targets, settings.shutdownTimeoutSeconds, log);

  requireFreeAddress(settings.host, settings.port);
  const resolved = await fetchModel(settings, log);
  const starting = startEngine(settings, resolved, log);
  // Its failure is thrown where it is awaited; until then it must not count as unhandled.
  starting.catch(() => {});
  const [{ loadText }, { startServer }, { ModelRegistry }] = await Promise.all([
    import("./load-text.ts"),
    import("../../server/listen.ts"),
    import("../../server/served-model.ts"),
  ]);
  const { chatTemplateFrom, ...text } = loadText(resolved.checkpointPath, {
    chatTemplate: settings.chatTemplate,
    jinjaExplicit: settings.jinjaExplicit,
  });
  const engine = await starting;
  targets.closeEngine = () => engine.close();
  const model: ServedModel = { id: resolved.id, created: Math.floor(Date.now() / 1000), engine, ...text };
  const server = startServer({
    hostname: settings.host,
    port: settings.port,
    models: new ModelRegistry([model]),
    settings: {
      keepAliveIntervalMs: settings.keepAliveIntervalMs,
      log: (level, message, cause) => log.write(level, message, cause),
    },
  });
  targets.server = server;
  report({ settings, resolved, engine, server, chatTemplateFrom }, log);
}

function startEngine(settings: Settings, resolved: ResolvedModel, log: Log): Promise<ProcessEngine> {
  return ProcessEngine.start({
    model: runnerOptions(settings, resolved.checkpointPath),
    prefixCache: settings.prefixCacheEntries > 0,
    name: resolved.id,
    log: (line) => log.write("warning", line),
  });
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
