/**
 * What the engine process asks of the module that loads models. `src/models/load-model.ts` is the one that
 * serves; tests name another, to see the process survive a runner that fails on demand.
 */

import type { ModelLoadOptions } from "../models/load-model.ts";
import type { ModelInfo } from "../models/loaded-model.ts";
import type { ModelRunner } from "../models/step.ts";
import type { EngineInfo } from "./messages.ts";

/** The loader's options that are plain data, so that they cross to the engine process as they are. */
export type RunnerOptions = Omit<ModelLoadOptions, "onProgress">;

export type RunnerInfo = Pick<
  ModelInfo,
  "architecture" | "weightBytes" | "kvBytes" | "loadSeconds" | "mapSeconds" | "threads" | "instructionSet"
> &
  Partial<Pick<ModelInfo, "modelContextLength" | "device">>;

export interface LoadedRunner extends ModelRunner {
  readonly info: RunnerInfo;
}

export interface RunnerModule {
  loadModel(options: RunnerOptions & Pick<ModelLoadOptions, "onProgress">): Promise<LoadedRunner>;
}

/** The module that serves. */
export const RUNNER_MODULE = new URL("../models/load-model.ts", import.meta.url).href;

/** What an engine over this runner tells about itself. */
export function engineInfo(modelPath: string, { info, limits }: LoadedRunner): EngineInfo {
  return {
    modelPath,
    architecture: info.architecture,
    contextLength: limits.contextLength,
    vocabularySize: limits.vocabularySize,
    sequencesMax: limits.sequencesMax,
    tokensMax: limits.tokensMax,
    blockSize: limits.blockSize,
    blockCount: limits.blockCount,
    topLogprobsMax: limits.topLogprobsMax,
    threads: info.threads,
    instructionSet: info.instructionSet,
    weightBytes: info.weightBytes,
    kvBytes: info.kvBytes,
    loadSeconds: info.loadSeconds,
    mapSeconds: info.mapSeconds,
    ...(info.device === undefined ? {} : { device: info.device }),
    ...(info.modelContextLength === undefined ? {} : { modelContextLength: info.modelContextLength }),
  };
}
