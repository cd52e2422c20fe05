/**
 * From a name to a model that serves: its files, its memory, its engine in a process of its own, and beside that load
 * what the server needs to turn text into tokens and back.
 */

import type { Settings } from "../../config/settings.ts";
import { ProcessEngine } from "../../engine/engine-client.ts";
import type { ServedModel } from "../../server/served-model.ts";
import type { ResolvedModel } from "../../weights/resolve.ts";
import { describeTokenizer } from "../debug-tokenizer.ts";
import { fetchModel, fetchTokenizer } from "../fetch-model.ts";
import type { Log } from "../log.ts";
import type { Placement } from "../memory-plan.ts";
import { chooseLoad, prepareModel } from "../prepare-model.ts";
import { TransferProgress } from "../progress.ts";
import type { LoaderOptions } from "../runner-options.ts";
import { AbsentEngine } from "./absent-engine.ts";
import { seedSource } from "./seed-source.ts";

export interface LoadedServedModel {
  readonly served: ServedModel;
  readonly resolved: ResolvedModel;
  readonly engine: ProcessEngine;
  readonly placement: Placement;
  readonly chatTemplateFrom: string;
}

export interface LoadOptions {
  /** The name clients use; that of the model when not given. */
  readonly id?: string | undefined;
  /** Memory that other models count on and have not touched yet. */
  readonly reservedBytes?: number;
  /** Called when the engine fails for good after it was loaded. */
  readonly onEngineFailed?: () => void;
  /** What else can be done while the engine loads. */
  readonly meanwhile?: () => void;
}

/** Loads the model that the settings name. Throws MistralError; nothing is left running then. */
export async function loadServedModel(
  settings: Settings,
  log: Log,
  { id, reservedBytes = 0, onEngineFailed, meanwhile }: LoadOptions = {},
): Promise<LoadedServedModel> {
  const resolved = await fetchModel(settings, log);
  const files = { ...settings, tokenizerFolder: await fetchTokenizer(settings) };
  const chosen = chooseLoad(resolved, settings, log);
  const name = id ?? resolved.id;
  const start = (options: LoaderOptions): Promise<ProcessEngine> => {
    const isMapped = options.mmap && options.device?.kind !== "cuda";
    const starting = ProcessEngine.start({
      model: options,
      prefixCache: settings.prefixCacheEntries > 0,
      queuedRequestsMax: settings.queuedRequestsMax,
      queuedTokensMax: settings.queuedTokensMax,
      hangTimeoutMs: settings.engineTimeoutSeconds * 1000,
      queueTimeoutMs: milliseconds(settings.queueTimeoutSeconds),
      name,
      log: (line) => log.write("warning", line),
      onLoadProgress: isMapped ? undefined : loadProgress(name),
      onStepTrace: settings.debug ? (line) => log.write("debug", line) : undefined,
      ...(onEngineFailed === undefined ? {} : { onFailed: onEngineFailed }),
    });
    // A failure may come before it is waited for.
    starting.catch(() => {});
    return starting;
  };
  // The engine reads the headers while they are read here, unless it has to be told what comes out.
  let starting = reservedBytes === 0 ? start(chosen.options) : undefined;
  try {
    const prepared = prepareModel(resolved, settings, log, reservedBytes, chosen);
    const { checkpoint, placement } = prepared;
    starting ??= start(prepared.options);
    await prepared.tellPlan();
    const { loadText } = await import("./load-text.ts");
    const { chatTemplateFrom, ...text } = loadText(checkpoint, files);
    if (settings.debug) log.table("info", describeTokenizer(text.tokenizer));
    const { rehearse } = await import("../../server/rehearsal.ts");
    rehearse(text);
    meanwhile?.();
    const engine = await starting;
    const created = Math.floor(Date.now() / 1000);
    const seeds = settings.seed === undefined ? {} : { drawSeed: seedSource(settings.seed) };
    return {
      served: { id: name, created, engine, ...text, ...seeds },
      resolved,
      engine,
      placement,
      chatTemplateFrom,
    };
  } catch (error) {
    starting?.then(
      (engine) => engine.close(),
      () => {}, // the engine's own failure is the one thrown, or came second
    );
    throw error;
  }
}

/** Everything of a model but its engine: its files are here and fit, so that a request later waits for no download. */
export async function describeServedModel(
  settings: Settings,
  log: Log,
  id: string | undefined,
): Promise<ServedModel> {
  const resolved = await fetchModel(settings, log);
  const files = { ...settings, tokenizerFolder: await fetchTokenizer(settings) };
  const { checkpoint, options, placement } = prepareModel(resolved, settings, log);
  const { loadText } = await import("./load-text.ts");
  const { chatTemplateFrom: _, ...text } = loadText(checkpoint, files);
  const created = Math.floor(Date.now() / 1000);
  return { id: id ?? resolved.id, created, engine: new AbsentEngine(options, placement), ...text };
}

/** Shows how far the weights of a model are; mapped ones are there at once. */
function loadProgress(name: string): (bytesDone: number, bytesTotal: number) => void {
  const progress = new TransferProgress();
  return (bytesDone, bytesTotal) => progress.update({ action: "load", name, bytesDone, bytesTotal });
}

function milliseconds(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}
