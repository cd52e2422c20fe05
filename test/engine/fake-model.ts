/**
 * A stand-in for the model loader in engine processes under test. The path is a query of what it shall be like,
 * `fake:?stepMs=2&blockCount=33`; prompts set it off: token 60 throws, 61 ends the process, 62 hangs.
 */

import { existsSync } from "node:fs";
import type { ProcessEngineOptions } from "../../src/engine/engine-client.ts";
import type { LoadedRunner, RunnerOptions } from "../../src/engine/runner-module.ts";
import { MistralError } from "../../src/errors.ts";
import { FakeRunner } from "./fake-runner.ts";

/** Options of an engine process that runs this model. */
export function fakeEngineOptions(query: string): ProcessEngineOptions {
  return {
    model: {
      path: `fake:?${query}`,
      threads: 1,
      sequencesMax: 8,
      tokensMax: 32,
      kvCacheType: "f32",
      blockSize: 4,
      mmap: true,
    },
    prefixCache: true,
    name: "fake",
    runnerModule: import.meta.url,
  };
}

export const THROW_TOKEN = 60;
export const CRASH_TOKEN = 61;
export const HANG_TOKEN = 62;

const TRAPS = new Map([
  [
    THROW_TOKEN,
    () => {
      throw new Error("device lost");
    },
  ],
  [CRASH_TOKEN, () => process.kill(process.pid, "SIGSEGV")],
  [
    HANG_TOKEN,
    () => {
      for (;;);
    },
  ],
]);

class LoadedFake extends FakeRunner implements LoadedRunner {
  readonly info = {
    architecture: "fake",
    weightBytes: 0,
    kvBytes: 0,
    loadSeconds: 0,
    mapSeconds: 0,
    threads: 1,
    instructionSet: "none",
  };

  override close(): void {
    super.close();
    console.log("the fake model is closed");
  }
}

export async function loadModel(options: RunnerOptions): Promise<LoadedRunner> {
  const { searchParams } = new URL(options.path);
  const refusal = searchParams.get("refuse");
  if (refusal !== null) throw new MistralError("invalid_model_file", refusal, { parameter: "f" });
  const trouble = searchParams.get("refuseWhileThere");
  if (trouble !== null && existsSync(trouble))
    throw new MistralError("insufficient_memory", "the device is full");
  if (searchParams.has("dieWhileLoading")) process.exit(7);
  return new LoadedFake({
    limits: {
      sequencesMax: options.sequencesMax,
      rowsMax: options.sequencesMax,
      tokensMax: options.tokensMax,
      blockSize: options.blockSize,
      contextLength: options.contextLengthMax ?? 1000,
    },
    stepMs: Number(searchParams.get("stepMs") ?? 0),
    drawnMax: THROW_TOKEN,
    traps: TRAPS,
  });
}
