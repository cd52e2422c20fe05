/** What the model loader is told, from the settings. */

import type { DeviceChoice } from "../backend/device-choice.ts";
import type { Settings } from "../config/settings.ts";
import { threadPlacement } from "../config/thread-placement.ts";
import type { RunnerOptions } from "../engine/runner-module.ts";
import type { ActivationPrecision } from "../graph/builder.ts";
import type { KvCacheType } from "../models/step-limits.ts";

const BYTES_PER_MB = 2 ** 20;

/** Plain data, since an engine process gets it as a message; what is added is for the model loader. */
export interface LoaderOptions extends RunnerOptions {
  readonly instructionSet?: string;
  readonly repack?: "auto" | "on" | "off";
  readonly activations?: ActivationPrecision;
}

export function runnerOptions(
  settings: Settings,
  checkpointPath: string,
  device: DeviceChoice = { kind: "cpu" },
): LoaderOptions {
  const { cacheContextLength, cacheMemoryMb, cacheMemoryFraction, integratedMemoryFraction } = settings;
  const graphBudgetBytes = settings.cudaGraphs ? settings.cudaGraphBudget : 0;
  const instructionSet = settings.instructionSet ?? (settings.forceAvx2 ? "x86_64_v3" : undefined);
  return {
    path: checkpointPath,
    device,
    integratedMemoryFraction,
    ...(graphBudgetBytes === undefined ? {} : { graphBudgetBytes }),
    ...threadPlacement(settings),
    spinRounds: settings.spinLimit,
    sequencesMax: settings.sequencesMax,
    tokensMax: settings.batchedTokensMax,
    blockSize: settings.cacheBlockSize,
    pagedAttention: settings.pagedAttention !== "off",
    kvCacheType: cacheTypeOf(settings),
    mmap: !settings.noMmap,
    repack: settings.repack,
    activations: activationsOn(device.kind, settings),
    deterministic: settings.deterministic,
    ...(cacheContextLength === undefined ? {} : { contextLengthMax: cacheContextLength }),
    ...(cacheMemoryMb === undefined ? {} : { kvMemoryBytes: cacheMemoryMb * BYTES_PER_MB }),
    ...(cacheMemoryFraction === undefined ? {} : { kvMemoryFraction: cacheMemoryFraction }),
    ...(instructionSet === undefined ? {} : { instructionSet }),
  };
}

/** How exactly a device takes activations when the settings leave it to the device. */
export function activationsOn(
  device: DeviceChoice["kind"],
  { activations, deterministic }: Pick<Settings, "activations" | "deterministic">,
): ActivationPrecision {
  if (device === "cuda" && deterministic) return "precise";
  if (activations !== "auto") return activations;
  return device === "cuda" ? "fast" : "precise";
}

/** The element type of keys and values that the settings ask for. */
export function cacheTypeOf({ cacheType }: Settings): KvCacheType {
  return cacheType === "auto" ? "f16" : cacheType;
}
