/** The engine of a model that nobody has asked for yet: knows from headers what it will be, and computes nothing. */

import type { Engine, EngineInfo, EngineStatistics, GenerationEvent } from "../../engine/messages.ts";
import { NO_STATISTICS } from "../../engine/statistics.ts";
import type { Placement } from "../memory-plan.ts";
import type { LoaderOptions } from "../runner-options.ts";

export class AbsentEngine implements Engine {
  readonly info: EngineInfo;
  readonly state = "draining";

  constructor(options: LoaderOptions, placement: Placement) {
    this.info = {
      modelPath: options.path,
      architecture: placement.architecture,
      contextLength: placement.contextLength,
      vocabularySize: placement.vocabularySize,
      sequencesMax: placement.sequencesMax,
      tokensMax: options.tokensMax,
      blockSize: options.blockSize,
      blockCount: 0,
      topLogprobsMax: 0,
      threads: options.threads,
      instructionSet: options.instructionSet ?? "",
      weightBytes: placement.weightBytes,
      kvBytes: 0,
      loadSeconds: 0,
      mapSeconds: 0,
    };
  }

  async *generate(): AsyncGenerator<GenerationEvent> {
    yield { type: "error", code: "engine_failed", message: "the model is not loaded" };
  }

  statistics(): EngineStatistics {
    return NO_STATISTICS;
  }

  async close(): Promise<void> {}
}
