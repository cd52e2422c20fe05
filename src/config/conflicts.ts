/** Settings that exclude or need each other: what no single value can tell. */

import { MistralError } from "../errors.ts";
import type { ConfigFile } from "./config-file.ts";
import { refuseNodeConflicts } from "./nodes.ts";
import type { SettingKey, Settings } from "./settings.ts";
import { type ModelResolution, type SettingSources, showSource } from "./sources.ts";
import { didYouMean } from "./suggest.ts";
import type { CommandName } from "./types.ts";

/** Settings that name one model and cannot stand for several. */
const ONE_MODEL: readonly SettingKey[] = ["model", "file", "revision", "servedName", "tokenizerFile"];

/** Ways to size the KV cache; at most one may be used. */
const CACHE_SIZES: readonly SettingKey[] = ["cacheContextLength", "cacheMemoryMb", "cacheMemoryFraction"];

/** Checks the settings of one model. Throws MistralError("invalid_configuration") that names all keys involved. */
export function refuseConflicts(command: CommandName, model: ModelResolution): void {
  const { settings, sources } = model;
  refuseTwoCacheSizes(settings, sources);
  if (settings.pagedAttention === "off" && sources.cacheBlockSize.kind !== "default") {
    throw conflict(
      `${showSource(sources.pagedAttention)} (off) gives each sequence one block, so ${showSource(sources.cacheBlockSize)} (${settings.cacheBlockSize} tokens) can have no effect; give one of them`,
      "--pa-block-size",
    );
  }
  if (settings.cpu && settings.device !== "auto" && settings.device !== "cpu") {
    throw conflict(
      `${showSource(sources.cpu)} and ${showSource(sources.device)} (${settings.device}) contradict each other; give one of them`,
      "--device",
    );
  }
  if (command === "serve" && settings.batchedTokensMax < settings.sequencesMax) {
    throw conflict(
      `--max-num-batched-tokens is ${settings.batchedTokensMax} (${showSource(sources.batchedTokensMax)}) and --max-seqs is ${settings.sequencesMax} (${showSource(sources.sequencesMax)}); a step needs room for a token of each sequence, so the first must be at least the second`,
      "--max-num-batched-tokens",
    );
  }
  if (settings.webUi && settings.noWebUi) {
    throw conflict(
      `${showSource(sources.webUi)} and ${showSource(sources.noWebUi)} contradict each other`,
      "--ui",
    );
  }
  refuseNodeConflicts(settings);
}

/**
 * Checks what several models must agree on, and gives the index of the default one. Throws
 * MistralError("invalid_configuration").
 */
export function refuseModelConflicts(
  models: readonly ModelResolution[],
  file: ConfigFile | undefined,
): number {
  const [first] = models;
  if (first === undefined) throw new Error("there is always at least one model");
  if (models.length > 1) {
    for (const key of ONE_MODEL) {
      const source = first.sources[key];
      if (source.kind !== "flag" && source.kind !== "environment") continue;
      throw conflict(
        `${showSource(source)} names one model, but ${file?.path} has ${models.length}; give one of the two`,
        source.name,
      );
    }
  }
  const ids = models.map(({ settings }) => modelName(settings));
  const twin = ids.find((id, index) => id !== undefined && ids.indexOf(id) !== index);
  if (twin !== undefined) {
    throw conflict(
      `${file?.path} has two models that answer to the name ${JSON.stringify(twin)}; give one of them another with the key models.alias`,
      "models.model_id",
    );
  }
  if (new Set(models.map(({ settings }) => settings.cpu)).size > 1) {
    throw conflict(
      `key models.device.cpu in ${file?.path} is true for one model and false for another; all models share a device`,
      "models.device.cpu",
    );
  }
  return defaultIndex(first, ids);
}

function defaultIndex({ settings, sources }: ModelResolution, ids: readonly (string | undefined)[]): number {
  const wanted = settings.defaultModelId;
  if (wanted === undefined) return 0;
  const index = ids.indexOf(wanted);
  if (index >= 0) return index;
  const known = ids.filter((id) => id !== undefined);
  throw conflict(
    `${showSource(sources.defaultModelId)} has the value ${JSON.stringify(wanted)}; allowed: one of ${known.join(", ")}${didYouMean(wanted, known)}`,
    "default_model_id",
  );
}

/** The name by which clients ask for a model, as far as the settings say; undefined for the default model. */
export function modelName(settings: Settings): string | undefined {
  return settings.servedName ?? settings.model ?? settings.file;
}

function refuseTwoCacheSizes(settings: Settings, sources: SettingSources): void {
  const [one, other] = CACHE_SIZES.filter((key) => settings[key] !== undefined);
  if (one === undefined || other === undefined) return;
  const show = (key: SettingKey): string => `${showSource(sources[key])} (${settings[key]})`;
  throw conflict(
    `${show(one)} and ${show(other)} both size the KV cache; give one of them`,
    "--pa-memory-mb",
  );
}

function conflict(message: string, parameter: string): MistralError {
  return new MistralError("invalid_configuration", message, { parameter });
}
