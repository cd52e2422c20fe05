/**
 * Which models there are, which of them are loaded, and the one a request means. Models come and go through here
 * alone: one load of a model at a time, and after a failure not again at once.
 */

import { MistralError } from "../errors.ts";
import { HttpFailure } from "./failure.ts";
import { LIMITS } from "./limits.ts";
import type { ServedModel } from "./served-model.ts";

/** The name that always means the first model that is loaded or would be. */
export const DEFAULT_MODEL = "default";

/** What to load, in the words of the command line. */
export interface ModelSource {
  /** A local path or a hub id; undefined for the default model. */
  readonly model: string | undefined;
  /** A file of it. */
  readonly file?: string | undefined;
}

export type ModelLoader = (source: ModelSource) => Promise<ServedModel>;

export type ModelStatus = "loaded" | "unloading" | "unloaded" | "loading" | "failed";

export interface ModelEntry {
  readonly id: string;
  readonly status: ModelStatus;
  /** Also of an unloaded model: what it was. */
  readonly model: ServedModel;
  /** Why the last attempt to load it failed. */
  readonly error: string | undefined;
}

interface Entry {
  readonly id: string;
  readonly source: ModelSource | undefined;
  status: ModelStatus;
  model: ServedModel;
  error: string | undefined;
  /** It went by itself, or never came: the first request for it brings it. */
  isAsleep: boolean;
  lastUsedMs: number;
  failedAtMs: number;
  /** Attempts to load it that failed, one after the other. */
  failures: number;
  /** The load or unload in progress. */
  work: Promise<void> | undefined;
}

export interface RegistryOptions {
  /** Without one, what is loaded can be unloaded but not come back. */
  readonly load?: ModelLoader;
  /** Where each of the first models came from, by its id. */
  readonly sources?: Readonly<Record<string, ModelSource>>;
  /** Models that are loaded by the first request for them. */
  readonly asleep?: readonly ServedModel[];
}

export class ModelRegistry {
  readonly #entries = new Map<string, Entry>();
  readonly #load: ModelLoader | undefined;
  /** Loads of models that have no entry yet, by their source. */
  readonly #arriving = new Map<string, Promise<Entry>>();

  /** @param models at least one; the first is the default. Throws invalid_configuration for none or a name used twice. */
  constructor(models: readonly ServedModel[], options: RegistryOptions = {}) {
    if (models.length === 0) throw new MistralError("invalid_configuration", "no model was given to serve");
    this.#load = options.load;
    for (const model of models) this.#add(model, options.sources?.[model.id]);
    for (const model of options.asleep ?? []) {
      const entry = this.#add(model, options.sources?.[model.id]);
      entry.status = "unloaded";
      entry.isAsleep = true;
    }
  }

  /** The loaded models, the default first. */
  list(): readonly ServedModel[] {
    return [...this.#entries.values()].filter(({ status }) => status === "loaded").map(({ model }) => model);
  }

  /** The models that a request can have: those that are loaded, and those that it would wake. */
  available(): readonly ServedModel[] {
    const entries = [...this.#entries.values()];
    return entries
      .filter(({ status, isAsleep }) => status === "loaded" || isAsleep)
      .map(({ model }) => model);
  }

  entries(): readonly ModelEntry[] {
    return [...this.#entries.values()];
  }

  /** The model of this name; the default one for "default" or no name. Throws model_not_found. */
  get(name: string | null | undefined): ServedModel {
    const entry = this.#find(name);
    if (entry?.status === "loaded") {
      entry.lastUsedMs = performance.now();
      return entry.model;
    }
    if (entry !== undefined) throw notLoaded(entry);
    throw this.#unknown(name);
  }

  /**
   * Loads the model that a request names if it is not there, one load whoever asks; undefined when there is nothing
   * to wait for, also because nobody knows how to load it. Rejects with what loading throws.
   */
  wake(name: string | null | undefined): Promise<unknown> | undefined {
    const entry = this.#find(name);
    if (entry === undefined || entry.status === "loaded") return undefined;
    return this.#load === undefined || entry.source === undefined ? undefined : this.reload(entry.id);
  }

  /** Unloads the models that nobody has used for this long; the next request for one brings it back. */
  async sleepIdle(idleMs: number): Promise<readonly string[]> {
    const nowMs = performance.now();
    const idle: Entry[] = [];
    for (const entry of this.#entries.values()) {
      if (entry.status !== "loaded" || entry.source === undefined || this.#load === undefined) continue;
      const { running, waiting, pending } = entry.model.engine.statistics();
      if (running + waiting + pending > 0) entry.lastUsedMs = nowMs;
      else if (nowMs - entry.lastUsedMs >= idleMs) idle.push(entry);
    }
    await Promise.all(
      idle.map(async (entry) => {
        entry.isAsleep = true;
        await this.unload(entry.id);
      }),
    );
    return idle.map(({ id }) => id);
  }

  /** The full name of the model meant; undefined when there is none. */
  idOf(name: string | null | undefined): string | undefined {
    return this.#find(name)?.id;
  }

  /** What is known of this model, loaded or not. Throws model_not_found. */
  entry(name: string): ModelEntry {
    return this.#require(name);
  }

  /** Ends the model's engine after its open requests, and frees its memory. Throws model_not_found. */
  async unload(name: string): Promise<ModelEntry> {
    const entry = this.#require(name);
    // In this function itself: whoever finds nothing in progress begins before anybody else can look.
    while (entry.work !== undefined) await entry.work.catch(() => {});
    if (entry.status !== "loaded") return entry;
    entry.status = "unloading";
    await this.#during(entry, async () => {
      await entry.model.engine.close();
      entry.status = "unloaded";
    });
    return entry;
  }

  /** Loads a model again that was unloaded or failed; a loaded one is left alone. Throws what loading throws. */
  async reload(name: string): Promise<ModelEntry> {
    const entry = this.#require(name);
    while (entry.work !== undefined) await entry.work.catch(() => {});
    const { source } = entry;
    if (entry.status === "loaded") return entry;
    const load = this.#load;
    if (load === undefined || source === undefined) {
      throw new HttpFailure(409, `How "${entry.id}" was loaded is not known, so it cannot be loaded again.`, {
        code: "no_loader_config",
      });
    }
    const waitMs = retryDelayMs(entry.failures) - (performance.now() - entry.failedAtMs);
    if (entry.status === "failed" && waitMs > 0) {
      throw new HttpFailure(503, `Loading "${entry.id}" failed just now: ${entry.error}`, {
        code: "model_load_failed",
        headers: { "retry-after": String(Math.ceil(waitMs / 1000)) },
      });
    }
    entry.status = "loading";
    await this.#during(entry, async () => {
      try {
        const model = await load(source);
        // What a client calls it stays, also where a path has since come to mean another model.
        entry.model = { ...model, id: entry.id };
        entry.status = "loaded";
        entry.error = undefined;
        entry.failures = 0;
        entry.isAsleep = false;
        entry.lastUsedMs = performance.now();
      } catch (error) {
        entry.status = "failed";
        entry.error = error instanceof Error ? error.message : String(error);
        entry.failedAtMs = performance.now();
        entry.failures += 1;
        throw error;
      }
    });
    return entry;
  }

  /** Loads a further model; one load of it at a time, whoever asks. Throws what loading throws, and 409 for a name in use. */
  async load(source: ModelSource): Promise<ModelEntry> {
    const load = this.#load;
    if (load === undefined) {
      throw new HttpFailure(409, "This server was built around its models and can load no others.", {
        code: "no_loader_config",
      });
    }
    const known = [...this.#entries.values()].find((entry) => sameSource(entry.source, source));
    if (known !== undefined) return this.reload(known.id);
    const key = JSON.stringify([source.model, source.file]);
    const arriving = this.#arriving.get(key);
    if (arriving !== undefined) return arriving;
    const arrival = load(source).then(async (model) => {
      try {
        return this.#add(model, source);
      } catch {
        await model.engine.close();
        throw new HttpFailure(409, `A model named "${model.id}" is there already.`, {
          code: "model_name_in_use",
        });
      }
    });
    this.#arriving.set(key, arrival);
    try {
      return await arrival;
    } finally {
      this.#arriving.delete(key);
    }
  }

  /** Ends every engine, as a stopping server does. */
  async close(): Promise<void> {
    await Promise.all(this.list().map(({ engine }) => engine.close()));
  }

  #add(model: ServedModel, source: ModelSource | undefined): Entry {
    const { id } = model;
    if (this.#entries.has(id) || id === DEFAULT_MODEL) {
      throw new MistralError("invalid_configuration", `two models would answer to the name "${id}"`);
    }
    const entry: Entry = {
      id,
      source,
      status: "loaded",
      model,
      error: undefined,
      isAsleep: false,
      lastUsedMs: performance.now(),
      failedAtMs: 0,
      failures: 0,
      work: undefined,
    };
    this.#entries.set(id, entry);
    return entry;
  }

  async #during(entry: Entry, work: () => Promise<void>): Promise<void> {
    entry.work = work();
    try {
      await entry.work;
    } finally {
      entry.work = undefined;
    }
  }

  #find(name: string | null | undefined): Entry | undefined {
    if (name !== undefined && name !== null && name !== DEFAULT_MODEL) return this.#entries.get(name);
    const entries = [...this.#entries.values()];
    return entries.find(({ status, isAsleep }) => status === "loaded" || isAsleep) ?? entries[0];
  }

  #require(name: string): Entry {
    const entry = this.#find(name);
    if (entry === undefined) throw this.#unknown(name);
    return entry;
  }

  #unknown(name: string | null | undefined): MistralError {
    const loaded = this.list().map(({ id }) => `"${id}"`);
    return new MistralError(
      "model_not_found",
      `The model "${String(name).slice(0, 200)}" is not loaded. Loaded: ${loaded.join(", ")}; "${DEFAULT_MODEL}" means the first.`,
      { parameter: "model" },
    );
  }
}

/** Doubles with every failure, so that a model that cannot come does not take the machine's time. */
function retryDelayMs(failures: number): number {
  return Math.min(LIMITS.loadRetryMs * 2 ** Math.max(0, failures - 1), LIMITS.loadRetryMaxMs);
}

/** Nobody waits for an unloaded model; one that comes, goes or failed to come may be there in a moment. */
function notLoaded({ id, status, error }: Entry): HttpFailure {
  const why = error === undefined ? "" : ` (${error})`;
  const text = `The model "${id}" is ${status}${why}; POST /v1/models/reload loads it again.`;
  const details = { code: "model_not_loaded", parameter: "model" };
  if (status === "unloaded") return new HttpFailure(404, text, details);
  return new HttpFailure(503, text, { ...details, headers: { "retry-after": "5" } });
}

function sameSource(a: ModelSource | undefined, b: ModelSource): boolean {
  return a !== undefined && a.model === b.model && (a.file ?? undefined) === (b.file ?? undefined);
}
