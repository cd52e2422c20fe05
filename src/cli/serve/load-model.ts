/**
 * From a name to a model that serves: its files, its engine in a process of its own, and beside that load what the
 * server needs to turn text into tokens and back.
 */

import type { Settings } from "../../config/settings.ts";
import { ProcessEngine } from "../../engine/engine-client.ts";
import type { ServedModel } from "../../server/served-model.ts";
import type { ResolvedModel } from "../../weights/resolve.ts";
import { fetchModel } from "../fetch-model.ts";
import type { Log } from "../log.ts";
import { runnerOptions } from "../runner-options.ts";

export interface LoadedServedModel {
  readonly served: ServedModel;
  readonly resolved: ResolvedModel;
  readonly engine: ProcessEngine;
  readonly chatTemplateFrom: string;
}

/**
 * Loads the model of `--model-id` and `--quantized-file`; `onEngineFailed` is called when its engine later fails for
 * good. Throws MistralError; nothing is left running then.
 */
export async function loadServedModel(
  settings: Settings,
  log: Log,
  onEngineFailed: () => void = () => {},
): Promise<LoadedServedModel> {
  const resolved = await fetchModel(settings, log);
  const starting = ProcessEngine.start({
    model: runnerOptions(settings, resolved.checkpointPath),
    prefixCache: settings.prefixCacheEntries > 0,
    queuedRequestsMax: settings.queuedRequestsMax,
    queuedTokensMax: settings.queuedTokensMax,
    queueTimeoutMs: milliseconds(settings.queueTimeoutSeconds),
    name: resolved.id,
    log: (line) => log.write("warning", line),
    onFailed: onEngineFailed,
  });
  try {
    const { loadText } = await import("./load-text.ts");
    const { chatTemplateFrom, ...text } = loadText(resolved.checkpointPath, {
      chatTemplate: settings.chatTemplate,
      jinjaExplicit: settings.jinjaExplicit,
    });
    const engine = await starting;
    const served = { id: resolved.id, created: Math.floor(Date.now() / 1000), engine, ...text };
    return { served, resolved, engine, chatTemplateFrom };
  } catch (error) {
    starting.then(
      (engine) => engine.close(),
      () => {}, // the engine's own failure is the one thrown, or came second
    );
    throw error;
  }
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}
