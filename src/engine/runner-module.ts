/**
 * What the engine process asks of the module that loads models. `src/models/load-model.ts` is the one that
 * serves; tests name another, to see the process survive a runner that fails on demand.
 */

import type { ModelRunner } from "../models/step.ts";
import type { EngineInfo } from "./messages.ts";

/** Plain data, so that it crosses to the engine process as it is. */
export interface RunnerOptions {
  readonly path: string;
  readonly threads: number;
  readonly sequencesMax: number;
  readonly tokensMax: number;
  /** Shortens the model's own context. */
  readonly contextLengthMax?: number;
  readonly kvCacheType: "f32" | "f16" | "bf16";
  /** Memory for keys and values; chosen by the loader when absent. */
  readonly kvMemoryBytes?: number;
  readonly blockSize: number;
  readonly mmap: boolean;
}

export interface RunnerInfo {
  readonly architecture: string;
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly loadSeconds: number;
  readonly mapSeconds: number;
  readonly threads: number;
  readonly instructionSet: string;
}

export interface LoadedRunner extends ModelRunner {
  readonly info: RunnerInfo;
}

export interface RunnerModule {
  loadModel(options: RunnerOptions): Promise<LoadedRunner>;
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
  };
}
