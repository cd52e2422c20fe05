/**
 * What the server and an engine process say to each other: plain data, structured-clone safe, one message per
 * step with the new tokens of every sequence. Nothing here knows about text, HTTP or devices.
 */

import type { ErrorCode } from "../errors.ts";
import type { Pooling } from "./pooling.ts";

/** Who goes first when requests wait: people at a screen, everybody, jobs that have time. */
export type Priority = "interactive" | "normal" | "batch";

/** The DRY penalty: tokens that would prolong a repetition of what was said before become less likely. */
export interface DryParameters {
  /** Above 0. */
  readonly multiplier: number;
  /** The penalty is `multiplier * base ** (length - allowedLength)`; above 0. */
  readonly base: number;
  /** Shortest repetition that is penalised; at least 1. */
  readonly allowedLength: number;
  /** Tokens across which nothing counts as repeated. */
  readonly breakers: readonly number[];
}

export interface SamplingParameters {
  /** 0 is greedy. */
  readonly temperature: number;
  /** 0 is off. */
  readonly topK: number;
  /** 1 is off. */
  readonly topP: number;
  /** 0 is off. */
  readonly minP: number;
  /** Unsigned 64-bit; the same seed gives the same tokens whatever else is in the batch. */
  readonly seed: bigint;
  readonly frequencyPenalty: number;
  readonly presencePenalty: number;
  /** 1 is off. */
  readonly repetitionPenalty: number;
  /** Added to the logits of these tokens. */
  readonly logitBias: readonly { readonly token: number; readonly bias: number }[];
  /** Absent: off. */
  readonly dry?: DryParameters;
  /** -1: no log-probabilities; 0: of the chosen token; n: also of the n most likely tokens. */
  readonly logprobs: number;
}

export interface GenerateRequest {
  /** Unique for the life of the engine; chosen by the client. */
  readonly id: number;
  readonly promptTokens: Int32Array;
  /** Most tokens to generate; 0 only scores the prompt. */
  readonly maxTokens: number;
  /** Tokens that end the sequence with reason "stop"; they are reported in no event. */
  readonly stopTokens: readonly number[];
  readonly sampling: SamplingParameters;
  /** -1: none; n >= 0: also report the log-probability of each prompt token and its n best alternatives. */
  readonly promptLogprobs: number;
  /** Asks for the prompt's hidden states, pooled, and for nothing else: with `maxTokens` 0 and no log-probabilities. */
  readonly embedding?: Pooling;
  /** "normal" when absent. */
  readonly priority?: Priority;
  /** Requests share cached prefixes only with requests of the same salt; the empty one when absent. */
  readonly cacheSalt?: string;
}

export interface TokenLogprob {
  readonly token: number;
  readonly logprob: number;
  readonly top: readonly { readonly token: number; readonly logprob: number }[];
}

export type FinishReason = "stop" | "length" | "abort";

export interface Usage {
  readonly promptTokens: number;
  readonly completionTokens: number;
  /** Prompt tokens whose KV came out of the prefix cache. */
  readonly cachedTokens: number;
}

/** What happened to one request; every request ends in exactly one `finish` or `error`. */
export type GenerationEvent =
  | { readonly type: "prompt"; readonly logprobs: readonly (TokenLogprob | null)[] }
  /** f32 `[width]`, as the model gives it after its last norm. */
  | { readonly type: "embedding"; readonly vector: Float32Array }
  | {
      readonly type: "tokens";
      readonly tokens: readonly number[];
      readonly logprobs: readonly TokenLogprob[];
    }
  | { readonly type: "finish"; readonly reason: FinishReason; readonly usage: Usage }
  | { readonly type: "error"; readonly code: ErrorCode; readonly message: string };

export interface EngineInfo {
  readonly modelPath: string;
  readonly architecture: string;
  readonly contextLength: number;
  readonly vocabularySize: number;
  readonly sequencesMax: number;
  readonly tokensMax: number;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly topLogprobsMax: number;
  readonly threads: number;
  readonly instructionSet: string;
  /** A GPU's name and number; absent on the processor. */
  readonly device?: string;
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly loadSeconds: number;
  readonly mapSeconds: number;
  /** What the model was made for; above `contextLength` where the KV pool holds less. Absent: not known. */
  readonly modelContextLength?: number;
}

/** What an engine does now, and did since it was started; crashes of its process reset no counter. */
export interface EngineStatistics {
  readonly running: number;
  readonly waiting: number;
  /** Accepted, but not yet seen by the engine's process. */
  readonly pending: number;
  readonly blocksUsed: number;
  readonly blocksTotal: number;
  /** Age of the last sign of life of a busy engine; 0 when it is idle or runs in this process. */
  readonly silentSeconds: number;
  readonly steps: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  readonly preemptions: number;
  readonly prefixCacheQueries: number;
  readonly prefixCacheHits: number;
  /** Cached blocks that were overwritten. */
  readonly prefixCacheEvictions: number;
  /** Requests that ended, by how. */
  readonly endedStop: number;
  readonly endedLength: number;
  readonly endedAbort: number;
  readonly endedError: number;
  /** Requests that never ran, by why: longer than context or pool; wrong; queue full; waited too long. */
  readonly refusedTooLong: number;
  readonly refusedInvalid: number;
  readonly refusedQueueFull: number;
  readonly refusedQueueTimeout: number;
  /** Times the engine's process was started again, and how often because it hung. */
  readonly restarts: number;
  readonly hangs: number;
}

/** Told once, when a request first takes part in a step, how long it had waited for that. */
export type StartListener = (queueSeconds: number) => void;

/** The engine as its callers see it; one implementation runs in-process, one talks to an engine process. */
export interface Engine {
  readonly info: EngineInfo;
  /**
   * Runs a request. Iteration ends after the terminal event. Aborting `signal`, or leaving the loop early,
   * frees the sequence within one step; aborted with the reason `TEXT_COMPLETE` it counts as stopped.
   */
  generate(
    request: Omit<GenerateRequest, "id">,
    signal?: AbortSignal,
    onStarted?: StartListener,
  ): AsyncIterable<GenerationEvent>;
  statistics(): EngineStatistics;
  /** "ready" accepts requests; "starting" after a crash is being brought back; "failed" gave up. */
  readonly state: "starting" | "ready" | "draining" | "failed";
  close(): Promise<void>;
}
