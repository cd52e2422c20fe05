/**
 * An engine that plays a script: it stands in for the arithmetic, so that tests can say exactly what is generated,
 * when, and how it fails. Everything it counts is about the contract of `Engine`: what runs, what was freed, how.
 */

import type {
  Engine,
  EngineInfo,
  EngineStatistics,
  GenerateRequest,
  GenerationEvent,
  StartListener,
  TokenLogprob,
} from "../../src/engine/messages.ts";
import { NO_STATISTICS } from "../../src/engine/statistics.ts";
import type { ErrorCode } from "../../src/errors.ts";

export interface Script {
  /** What is generated, before stop tokens and the limit cut it. */
  readonly tokens: readonly number[];
  /** Tokens of one step; 1 when left out. */
  readonly tokensPerStep?: number;
  /** Before each step. */
  readonly stepDelayMs?: number;
  /** Before the first step, as a long prompt would take. */
  readonly prefillDelayMs?: number;
  /** Ends with this error after so many tokens. */
  readonly failure?: { readonly afterTokens: number; readonly code: ErrorCode; readonly message: string };
  /** Ends the iteration after so many tokens without any terminal event, against the contract. */
  readonly vanishAfterTokens?: number;
  /** Throws from the iterator itself, which only a bug does. */
  readonly throws?: Error;
  readonly cachedTokens?: number;
  /** What the engine says of the wait before the first step; nothing when left out. */
  readonly queueSeconds?: number;
  /** The embedding; made of the prompt's tokens when left out. */
  readonly vector?: Float32Array;
}

/** What a prompt is embedded as: different for every prompt, and not of unit length. */
export function scriptedVector(promptTokens: Int32Array): Float32Array {
  return Float32Array.of(promptTokens.length, promptTokens[0] ?? 0, promptTokens.at(-1) ?? 0);
}

export type EngineRequest = Omit<GenerateRequest, "id">;

export class ScriptedEngine implements Engine {
  readonly info: EngineInfo;
  state: Engine["state"] = "ready";
  /** Every request received, in order. */
  readonly requests: EngineRequest[] = [];
  running = 0;
  /** Requests that ended because their signal aborted. */
  aborted = 0;
  generatedTokens = 0;
  readonly #script: (request: EngineRequest) => Script;

  constructor(script: (request: EngineRequest) => Script, info: Partial<EngineInfo> = {}) {
    this.#script = script;
    this.info = { ...INFO, ...info };
  }

  async *generate(
    request: EngineRequest,
    signal?: AbortSignal,
    onStarted?: StartListener,
  ): AsyncGenerator<GenerationEvent, void, undefined> {
    this.requests.push(request);
    const script = this.#script(request);
    if (script.queueSeconds !== undefined) onStarted?.(script.queueSeconds);
    this.running += 1;
    try {
      yield* this.#play(script, request, signal ?? new AbortController().signal);
    } finally {
      this.running -= 1;
    }
  }

  statistics(): EngineStatistics {
    return { ...NO_STATISTICS, running: this.running, generatedTokens: this.generatedTokens };
  }

  async close(): Promise<void> {
    this.state = "draining";
  }

  async *#play(
    script: Script,
    request: EngineRequest,
    signal: AbortSignal,
  ): AsyncGenerator<GenerationEvent, void, undefined> {
    if (script.throws !== undefined) throw script.throws;
    const end = script.tokens.findIndex((token) => request.stopTokens.includes(token));
    const wanted = end < 0 ? script.tokens : script.tokens.slice(0, end);
    const tokens = wanted.slice(0, request.maxTokens);
    const finished = (reason: "stop" | "length" | "abort", completionTokens: number): GenerationEvent => ({
      type: "finish",
      reason,
      usage: {
        promptTokens: request.promptTokens.length,
        completionTokens,
        cachedTokens: script.cachedTokens ?? 0,
      },
    });
    await pause(script.prefillDelayMs ?? 0, signal);
    let sent = 0;
    for (;;) {
      if (signal.aborted) {
        this.aborted += 1;
        yield finished("abort", sent);
        return;
      }
      if (sent === 0 && request.promptLogprobs >= 0) yield promptEvent(request);
      if (script.failure !== undefined && sent >= script.failure.afterTokens) {
        yield { type: "error", code: script.failure.code, message: script.failure.message };
        return;
      }
      if (script.vanishAfterTokens !== undefined && sent >= script.vanishAfterTokens) return;
      if (sent >= tokens.length) break;
      await pause(script.stepDelayMs ?? 0, signal);
      if (signal.aborted) continue;
      const step = tokens.slice(sent, sent + (script.tokensPerStep ?? 1));
      const { logprobs: count } = request.sampling;
      yield {
        type: "tokens",
        tokens: step,
        logprobs: count < 0 ? [] : step.map((token) => logprobOf(token, count)),
      };
      sent += step.length;
      this.generatedTokens += step.length;
    }
    if (request.embedding !== undefined) {
      yield { type: "embedding", vector: script.vector ?? scriptedVector(request.promptTokens) };
      yield finished("stop", 0);
      return;
    }
    yield finished(wanted.length > tokens.length || end < 0 ? "length" : "stop", sent);
  }
}

/** Deterministic and of the right shape: the token itself is likeliest, its successors follow. */
export function logprobOf(token: number, count: number): TokenLogprob {
  const top = Array.from({ length: count }, (_, rank) => ({
    token: (token + rank) % 256,
    logprob: -0.25 - rank - token / 1024,
  }));
  return {
    token,
    logprob: -0.25 - token / 1024,
    top: top.map((entry, rank) => (rank === 0 ? { ...entry, token } : entry)),
  };
}

function promptEvent(request: EngineRequest): GenerationEvent {
  const logprobs = Array.from(request.promptTokens, (token, position) =>
    position === 0 ? null : logprobOf(token, request.promptLogprobs),
  );
  return { type: "prompt", logprobs };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  if (ms === 0 || signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

const INFO: EngineInfo = {
  modelPath: "scripted",
  architecture: "scripted",
  contextLength: 4096,
  vocabularySize: 266,
  sequencesMax: 16,
  tokensMax: 512,
  blockSize: 32,
  blockCount: 1024,
  topLogprobsMax: 20,
  threads: 1,
  instructionSet: "none",
  weightBytes: 0,
  kvBytes: 0,
  loadSeconds: 0,
  mapSeconds: 0,
};
