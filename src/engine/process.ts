/**
 * Entry of the engine process: loads one model, then takes commands and steps until it is told to close or its
 * parent is gone. Started by `ProcessEngine`, never by hand.
 */

import { MistralError } from "../errors.ts";
import { EngineCore, type EngineCoreOptions } from "./engine-core.ts";
import { collectWhenIdle } from "./idle-collection.ts";
import { HEARTBEAT_MS, STATISTICS_MS } from "./limits.ts";
import { describeStep } from "./plan.ts";
import type { EngineCommand, EngineLoad, EngineMessage } from "./process-messages.ts";
import { engineInfo, type LoadedRunner, RUNNER_MODULE, type RunnerModule } from "./runner-module.ts";
import { StepLoop } from "./step-loop.ts";

interface Service {
  readonly core: EngineCore;
  readonly loop: StepLoop;
  readonly runner: LoadedRunner;
}

let service: Service | null = null;

function send(message: EngineMessage): void {
  process.send?.(message);
}

async function load({ runnerModule, model, traceSteps, ...options }: EngineLoad): Promise<void> {
  try {
    const { loadModel }: RunnerModule = await import(runnerModule);
    const runner = await loadModel({ ...model, onProgress: tellProgress() });
    const onStep: EngineCoreOptions["onStep"] =
      traceSteps === true
        ? (plan, milliseconds) => send({ type: "trace", line: describeStep(plan, milliseconds) })
        : undefined;
    const core = new EngineCore(runner, { ...options, onStep });
    service = { core, runner, loop: createLoop(core) };
    collectWhenIdle(() => (core.hasWork ? null : core.statistics().steps));
    send({ type: "ready", info: engineInfo(model.path, runner), statistics: core.statistics() });
  } catch (error) {
    const known = error instanceof MistralError ? error : null;
    if (known === null) console.error(error);
    const message = error instanceof Error ? error.message : String(error);
    send({
      type: "load_failed",
      code: known?.code ?? "engine_failed",
      message: known === null ? `the model could not be loaded: ${message}` : message,
      parameter: known?.parameter,
    });
  }
}

/** Tells how far a load is, now and then and at its end. */
function tellProgress(): (bytesDone: number, bytesTotal: number) => void {
  let lastSentMs = 0;
  return (bytesDone, bytesTotal) => {
    const nowMs = performance.now();
    if (bytesDone < bytesTotal && nowMs - lastSentMs < HEARTBEAT_MS) return;
    lastSentMs = nowMs;
    send({ type: "progress", bytesDone, bytesTotal });
  };
}

/**
 * One message per step that brought something; during long prompts at least a sign of life. Statistics go with it when
 * requests come or go, and else now and then: everything that is sent holds up the next step.
 */
function createLoop(core: EngineCore): StepLoop {
  let lastSentMs = 0;
  let lastToldMs = 0;
  return new StepLoop(core, (report) => {
    const nowMs = performance.now();
    const { started, prompts, ids, ends } = report;
    const changes = ends.length + prompts.length + started.length;
    if (changes + ids.length === 0 && nowMs - lastSentMs < HEARTBEAT_MS) return;
    lastSentMs = nowMs;
    const failure = core.failure?.message ?? null;
    const tells = changes > 0 || failure !== null || nowMs - lastToldMs >= STATISTICS_MS;
    if (tells) lastToldMs = nowMs;
    send({ type: "step", report, statistics: tells ? core.statistics() : null, failure });
  });
}

function obey(command: EngineCommand): void {
  switch (command.type) {
    case "load":
      void load(command.load);
      return;
    case "submit":
      service?.core.submit(command.request);
      service?.loop.wake();
      return;
    case "abort":
      service?.core.abort(command.id, command.reason);
      service?.loop.wake();
      return;
    case "close":
      service?.runner.close();
      process.exit(0);
      return;
    default:
      command satisfies never;
  }
}

if (process.send === undefined) {
  console.error("this is the engine process of the server; start it with `serve`");
  process.exit(2);
}
process.on("message", obey);
// Most likely what the first command asks for, which may be some time in coming; a failure is told by that command.
import(RUNNER_MODULE).catch(() => {});
process.on("disconnect", () => process.exit(0));
// Signals to the process group are for the server, which drains before it closes this process.
process.on("SIGINT", () => {});
process.on("SIGTERM", () => {});
