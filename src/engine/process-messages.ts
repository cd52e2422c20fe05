/** The channel between the server's process and an engine process, both directions. */

import type { ErrorCode } from "../errors.ts";
import type { EngineInfo, EngineStatistics, GenerateRequest } from "./messages.ts";
import type { RunnerOptions } from "./runner-module.ts";
import type { StepReport } from "./step-report.ts";

export interface EngineLoad {
  /** URL of the module that exports `loadModel`; see `RunnerModule`. */
  readonly runnerModule: string;
  readonly model: RunnerOptions;
  readonly prefixCache: boolean;
  readonly queueTimeoutMs?: number;
  /** Each step is described in a message of its own. */
  readonly traceSteps?: boolean;
}

/** To the engine process. "load" comes first and once. */
export type EngineCommand =
  | { readonly type: "load"; readonly load: EngineLoad }
  | { readonly type: "submit"; readonly request: GenerateRequest }
  | { readonly type: "abort"; readonly id: number; readonly reason: "stop" | "abort" }
  | { readonly type: "close" };

/** From the engine process. Every message is a heartbeat. */
export type EngineMessage =
  | { readonly type: "ready"; readonly info: EngineInfo; readonly statistics: EngineStatistics }
  /** How much of the weights is loaded. */
  | { readonly type: "progress"; readonly bytesDone: number; readonly bytesTotal: number }
  /** What a step was made of, in words. */
  | { readonly type: "trace"; readonly line: string }
  /** The model cannot be loaded, and trying again would not help. */
  | {
      readonly type: "load_failed";
      readonly code: ErrorCode;
      readonly message: string;
      readonly parameter: string | undefined;
    }
  | {
      readonly type: "step";
      readonly report: StepReport;
      /** Null where little has changed since they were last told. */
      readonly statistics: EngineStatistics | null;
      /** Why the model failed in this step, after which the process is of no more use; null when it did not. */
      readonly failure: string | null;
    };
