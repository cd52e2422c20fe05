/**
 * The engine without a process of its own, for tests and embedding. Each step blocks the event loop it runs
 * on, and a crash of the device library takes the whole process down: servers use `ProcessEngine`.
 */

import type { ModelRunner } from "../models/step.ts";
import { EngineCore, type EngineCoreOptions } from "./engine-core.ts";
import type {
  Engine,
  EngineInfo,
  EngineStatistics,
  GenerateRequest,
  GenerationEvent,
  StartListener,
} from "./messages.ts";
import { type QueueBounds, RequestTable, refused } from "./request-table.ts";
import { StepLoop } from "./step-loop.ts";

export class InProcessEngine implements Engine {
  readonly info: EngineInfo;
  readonly #runner: ModelRunner;
  readonly #core: EngineCore;
  readonly #requests: RequestTable;
  #closing: Promise<void> | null = null;

  /** Takes the runner over: `close` closes it. */
  constructor(runner: ModelRunner, info: EngineInfo, options: EngineCoreOptions & QueueBounds) {
    this.info = info;
    this.#runner = runner;
    this.#core = new EngineCore(runner, options);
    const loop = new StepLoop(this.#core, (report) => this.#requests.dispatch(report));
    this.#requests = new RequestTable(
      {
        submit: (request) => {
          this.#core.submit(request);
          loop.wake();
        },
        abort: (id, reason) => {
          this.#core.abort(id, reason);
          loop.wake();
        },
      },
      { sequencesMax: runner.limits.sequencesMax, ...options },
    );
  }

  get state(): Engine["state"] {
    if (this.#core.failure !== null) return "failed";
    return this.#closing === null ? "ready" : "draining";
  }

  generate(
    request: Omit<GenerateRequest, "id">,
    signal?: AbortSignal,
    onStarted?: StartListener,
  ): AsyncIterable<GenerationEvent> {
    if (this.#closing !== null) return refused("shutting_down", "the engine is shutting down");
    return this.#requests.start(request, signal, onStarted);
  }

  statistics(): EngineStatistics {
    return { ...this.#core.statistics(), refusedQueueFull: this.#requests.refused };
  }

  /** Lets open requests finish, then frees the model. */
  close(): Promise<void> {
    this.#closing ??= this.#requests.whenIdle().then(() => this.#runner.close());
    return this.#closing;
  }
}
