/**
 * The models that a configuration names: what each is called, and how to load it, at the start and whenever it has
 * to come back. Each is an engine process of its own; memory that one counts on is not given to the next.
 */

import { modelName } from "../../config/conflicts.ts";
import type { Resolution } from "../../config/resolve.ts";
import type { Settings } from "../../config/settings.ts";
import type { ModelResolution } from "../../config/sources.ts";
import type { Engine } from "../../engine/messages.ts";
import type { ModelSource } from "../../server/model-registry.ts";
import type { ServedModel } from "../../server/served-model.ts";
import type { Log } from "../log.ts";
import { describeServedModel, type LoadedServedModel, loadServedModel } from "./load-model.ts";

interface Member {
  readonly id: string | undefined;
  readonly settings: Settings;
  readonly source: ModelSource;
}

export interface StartedFleet {
  /** The default model first. */
  readonly loaded: readonly LoadedServedModel[];
  /** Models that the first request for them loads. */
  readonly asleep: readonly ServedModel[];
  /** Where each of them came from, by its id. */
  readonly sources: Readonly<Record<string, ModelSource>>;
}

interface Reservation {
  readonly engine: Engine;
  readonly bytes: number;
}

export class ModelFleet {
  /** The default model first. */
  readonly #members: readonly Member[];
  readonly #shared: Settings;
  readonly #log: Log;
  readonly #onEngineFailed: () => void;
  #reservations: Reservation[] = [];

  constructor(resolution: Resolution, log: Log, onEngineFailed: () => void) {
    const isDefault = ({ settings }: ModelResolution): boolean => settings === resolution.settings;
    const ordered = [...resolution.models].sort((a, b) => Number(isDefault(b)) - Number(isDefault(a)));
    this.#members = ordered.map((model) => memberOf(model, resolution.models.length > 1));
    this.#shared = resolution.settings;
    this.#log = log;
    this.#onEngineFailed = onEngineFailed;
  }

  /**
   * Loads the models one after the other, the default first; with `--load-on-demand` only that one, the others are
   * described. When one fails, those before it are ended.
   */
  async start(): Promise<StartedFleet> {
    const loaded: LoadedServedModel[] = [];
    const asleep: ServedModel[] = [];
    const sources: Record<string, ModelSource> = {};
    try {
      for (const [index, member] of this.#members.entries()) {
        const isAwake = index === 0 || !this.#shared.loadOnDemand;
        const model = isAwake ? await this.#load(member) : undefined;
        if (model !== undefined) loaded.push(model);
        const served = model?.served ?? (await describeServedModel(member.settings, this.#log, member.id));
        if (model === undefined) asleep.push(served);
        sources[served.id] = member.source;
      }
    } catch (error) {
      await Promise.all(loaded.map(({ engine }) => engine.close()));
      throw error;
    }
    return { loaded, asleep, sources };
  }

  /** Loads a model of the configuration again, or a further one with the settings that all share. */
  async load(source: ModelSource): Promise<ServedModel> {
    const member = this.#members.find((candidate) => isSame(candidate.source, source));
    const further = {
      id: undefined,
      settings: { ...this.#shared, ...source, servedName: undefined },
      source,
    };
    return (await this.#load(member ?? further)).served;
  }

  async #load({ id, settings }: Member): Promise<LoadedServedModel> {
    this.#reservations = this.#reservations.filter(
      ({ engine: { state } }) => state === "ready" || state === "starting",
    );
    const reservedBytes = this.#reservations.reduce((sum, { bytes }) => sum + bytes, 0);
    const loaded = await loadServedModel(settings, this.#log, {
      id,
      reservedBytes,
      onEngineFailed: this.#onEngineFailed,
    });
    this.#reservations.push({ engine: loaded.engine, bytes: loaded.placement.kvBytes });
    return loaded;
  }
}

/** A file says by which name each model answers; alone on a command line, a model is called what it is. */
function memberOf({ settings, sources }: ModelResolution, isOneOfSeveral: boolean): Member {
  const isNamed = isOneOfSeveral || settings.servedName !== undefined || sources.model.kind === "file";
  return {
    id: isNamed ? modelName(settings) : undefined,
    settings,
    source: { model: settings.model, file: settings.file },
  };
}

function isSame(a: ModelSource, b: ModelSource): boolean {
  return a.model === b.model && (a.file ?? undefined) === (b.file ?? undefined);
}
