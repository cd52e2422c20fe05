/**
 * The engine in a process of its own, supervised: a crash or a hang ends its open requests with an error and
 * brings a new process up, ever more slowly when it keeps dying. The device can take down neither this
 * process nor other models.
 */

import { MistralError } from "../errors.ts";
import { EngineChild } from "./engine-child.ts";
import * as limits from "./limits.ts";
import type {
  Engine,
  EngineInfo,
  EngineStatistics,
  GenerateRequest,
  GenerationEvent,
  StartListener,
} from "./messages.ts";
import { Patience } from "./patience.ts";
import type { EngineMessage } from "./process-messages.ts";
import { type QueueBounds, RequestTable, refused } from "./request-table.ts";
import { RUNNER_MODULE, type RunnerOptions } from "./runner-module.ts";
import { continueStatistics, NO_STATISTICS } from "./statistics.ts";
import { Watchdog } from "./watchdog.ts";

export interface ProcessEngineOptions extends QueueBounds {
  readonly model: RunnerOptions;
  /** Whether full blocks are found again by later requests (`--prefix-cache-n` above 0). */
  readonly prefixCache: boolean;
  /** Names the model in the process list and before each line the process prints. */
  readonly name?: string;
  /** URL of the module that exports `loadModel`. */
  readonly runnerModule?: string;
  /** Silence at work after which the process counts as hung; longer where its steps are slow. */
  readonly hangTimeoutMs?: number;
  readonly drainTimeoutMs?: number;
  readonly restartDelayMs?: number;
  /** A request that has waited this long without ever running ends with "overloaded"; never when absent. */
  readonly queueTimeoutMs?: number | undefined;
  /** Called once when the engine keeps dying and is not started again. */
  readonly onFailed?: (error: MistralError) => void;
  /** Told how many bytes of the weights are loaded, at every start of a process. */
  readonly onLoadProgress?: ((bytesDone: number, bytesTotal: number) => void) | undefined;
  /** Takes lines for the log; standard error when absent. */
  readonly log?: (line: string) => void;
  /** Takes a line about every step; absent, none is made. */
  readonly onStepTrace?: ((line: string) => void) | undefined;
}

export class ProcessEngine implements Engine {
  readonly #options: ProcessEngineOptions;
  readonly #name: string;
  readonly #log: (line: string) => void;
  readonly #requests: RequestTable;
  readonly #watchdog: Watchdog;
  readonly #patience: Patience;
  readonly #started = Promise.withResolvers<void>();
  #state: Engine["state"] = "starting";
  /** The live process; null between a death and the next start. */
  #child: EngineChild | null = null;
  #info: EngineInfo | null = null;
  /** What the lives of earlier processes came to, and what the present one reports. */
  #past: EngineStatistics = NO_STATISTICS;
  #present: EngineStatistics = NO_STATISTICS;
  /** Milliseconds of work since the present figures came. */
  #unlearnedMs = 0;
  #restarts = 0;
  #hangs = 0;
  #readyAtMs = 0;
  #failures = 0;
  #restartTimer: Timer | null = null;
  #closing: Promise<void> | null = null;

  /**
   * Starts an engine process and waits until its model is loaded. Rejects with the loader's own error when
   * the model cannot be loaded, and with `engine_failed` when the process dies first; neither is retried.
   */
  static async start(options: ProcessEngineOptions): Promise<ProcessEngine> {
    const engine = new ProcessEngine(options);
    engine.#spawn();
    await engine.#started.promise;
    return engine;
  }

  private constructor(options: ProcessEngineOptions) {
    this.#options = options;
    this.#name = options.name ?? options.model.path.slice(options.model.path.lastIndexOf("/") + 1);
    this.#log = options.log ?? ((line) => void process.stderr.write(`${line}\n`));
    this.#requests = new RequestTable(
      {
        submit: (request) => {
          if (this.#requests.size === 1) this.#watchdog.heard();
          this.#child?.send({ type: "submit", request });
        },
        abort: (id, reason) => this.#child?.send({ type: "abort", id, reason }),
      },
      { ...options, sequencesMax: options.model.sequencesMax },
    );
    this.#patience = new Patience(options.hangTimeoutMs ?? limits.HANG_TIMEOUT_MS);
    this.#watchdog = new Watchdog({
      allowedMs: () => this.#patience.allowedMs,
      isBusy: () => this.#state !== "starting" && this.#child !== null && this.#requests.size > 0,
      onSilence: (ms) => {
        this.#hangs += 1;
        this.#log(
          `the engine process of ${this.#name} when it was last heard: ${JSON.stringify(this.#present)}`,
        );
        this.#lose(`hangs: no sign of life for ${Math.round(ms)} ms with requests open`);
      },
    });
  }

  get info(): EngineInfo {
    if (this.#info === null) throw new Error("the engine was never ready");
    return this.#info;
  }

  get state(): Engine["state"] {
    return this.#state;
  }

  /** The process's id, or undefined while none lives. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  generate(
    request: Omit<GenerateRequest, "id">,
    signal?: AbortSignal,
    onStarted?: StartListener,
  ): AsyncIterable<GenerationEvent> {
    switch (this.#state) {
      case "ready":
        return this.#requests.start(request, signal, onStarted);
      case "starting":
        return refused(
          "engine_failed",
          "the engine process is being restarted after a failure; try again shortly",
        );
      case "failed":
        return refused("engine_failed", "the engine process keeps failing and is not restarted any more");
      case "draining":
        return refused("shutting_down", "the engine is shutting down");
      default:
        return this.#state satisfies never;
    }
  }

  statistics(): EngineStatistics {
    const total = continueStatistics(this.#past, this.#present);
    return {
      ...total,
      pending: Math.max(0, this.#requests.size - total.running - total.waiting),
      silentSeconds: this.#watchdog.silentMs / 1000,
      endedError: total.endedError + this.#requests.failed,
      refusedQueueFull: this.#requests.refused,
      restarts: this.#restarts,
      hangs: this.#hangs,
    };
  }

  /** Lets open requests finish for up to `drainTimeoutMs`, ends the others with an error, and ends the process. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#state = "draining";
    if (this.#restartTimer !== null) clearTimeout(this.#restartTimer);
    const drained = this.#requests.whenIdle();
    await within(drained, this.#options.drainTimeoutMs ?? limits.DRAIN_TIMEOUT_MS);
    this.#requests.failAll("shutting_down", "the engine was shut down before this request could finish");
    this.#watchdog.stop();
    const child = this.#child;
    if (child === null) return;
    this.#child = null;
    child.send({ type: "close" });
    await within(child.exited, limits.EXIT_TIMEOUT_MS);
    child.kill();
    await child.exited;
  }

  #spawn(): void {
    this.#restartTimer = null;
    const child = EngineChild.start(this.#name, {
      onMessage: (message) => {
        if (child === this.#child) this.#receive(message);
      },
      onExit: (how) => {
        if (child === this.#child) this.#lose(how);
      },
      onLine: (line) => this.#log(`[engine ${this.#name}] ${line}`),
    });
    this.#child = child;
    const { model, prefixCache, queueTimeoutMs, onStepTrace, runnerModule = RUNNER_MODULE } = this.#options;
    const timeout = queueTimeoutMs === undefined ? {} : { queueTimeoutMs };
    const traceSteps = onStepTrace !== undefined;
    child.send({ type: "load", load: { model, prefixCache, runnerModule, traceSteps, ...timeout } });
  }

  #receive(message: EngineMessage): void {
    const { silentMs } = this.#watchdog;
    this.#watchdog.heard();
    switch (message.type) {
      case "ready":
        this.#info = message.info;
        this.#patience.begin(message.info.tokensMax);
        this.#present = message.statistics;
        this.#unlearnedMs = 0;
        this.#state = "ready";
        this.#readyAtMs = performance.now();
        this.#started.resolve();
        return;
      case "progress":
        this.#options.onLoadProgress?.(message.bytesDone, message.bytesTotal);
        return;
      case "trace":
        this.#options.onStepTrace?.(message.line);
        return;
      case "load_failed": {
        const { code, message: text, parameter } = message;
        // It was loaded before: what is missing now, such as memory that others have taken, may come back.
        if (this.#info !== null) {
          this.#lose(`cannot load the model again: ${text}`);
          return;
        }
        this.#giveUp(new MistralError(code, text, parameter === undefined ? {} : { parameter }));
        return;
      }
      case "step":
        this.#unlearnedMs += silentMs;
        if (message.statistics !== null) this.#learn(message.statistics);
        this.#requests.dispatch(message.report);
        if (message.failure !== null) this.#lose(`reports: ${message.failure}`);
        return;
      default:
        message satisfies never;
    }
  }

  #learn(statistics: EngineStatistics): void {
    this.#patience.learn(tokensOf(statistics) - tokensOf(this.#present), this.#unlearnedMs);
    this.#unlearnedMs = 0;
    this.#present = statistics;
  }

  /** The process is gone, or of no use: answers its requests and starts another one. */
  #lose(how: string): void {
    const last = this.#child;
    const text = `the engine process ${last?.pid} of ${this.#name} ${how}`;
    this.#retire();
    this.#requests.failAll("engine_failed", text);
    if (this.#state === "draining") return;
    if (this.#info === null) {
      this.#giveUp(new MistralError("engine_failed", `${text} while it loaded the model`));
      return;
    }
    const lived = this.#state === "ready" ? performance.now() - this.#readyAtMs : 0;
    this.#failures = lived > limits.HEALTHY_MS ? 1 : this.#failures + 1;
    if (this.#failures > limits.RESTARTS_MAX) {
      this.#giveUp(new MistralError("engine_failed", `${text}, for the ${this.#failures}th time in a row`));
      return;
    }
    this.#state = "starting";
    this.#restarts += 1;
    const first = this.#options.restartDelayMs ?? limits.RESTART_DELAY_MS;
    const delayMs = Math.min(first * 2 ** (this.#failures - 1), limits.RESTART_DELAY_MAX_MS);
    this.#log(`${text}; starting it again in ${delayMs} ms`);
    this.#restartTimer = setTimeout(() => void this.#spawnAfter(last), delayMs);
  }

  /** Starts the next process when the last one is gone: until then it has its memory, on the device too. */
  async #spawnAfter(last: EngineChild | null): Promise<void> {
    if (last !== null) await within(last.exited, limits.EXIT_TIMEOUT_MS);
    if (this.#state === "starting") this.#spawn();
  }

  #giveUp(error: MistralError): void {
    this.#retire();
    this.#watchdog.stop();
    this.#state = "failed";
    this.#started.reject(error);
    if (this.#info === null) return;
    this.#log(`${error.message}; giving up`);
    this.#options.onFailed?.(error);
  }

  #retire(): void {
    this.#child?.kill();
    this.#child = null;
    this.#past = continueStatistics(this.#past, this.#present);
    this.#present = { ...NO_STATISTICS, blocksTotal: this.#present.blocksTotal };
  }
}

function tokensOf({ promptTokens, generatedTokens }: EngineStatistics): number {
  return promptTokens + generatedTokens;
}

/** Waits for the promise, but no longer than this. */
async function within(promise: Promise<unknown>, timeoutMs: number): Promise<void> {
  const timeout = Promise.withResolvers<void>();
  const timer = setTimeout(timeout.resolve, timeoutMs);
  await Promise.race([promise, timeout.promise]);
  clearTimeout(timer);
}
