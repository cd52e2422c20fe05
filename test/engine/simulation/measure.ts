/** Figures of the scheduler alone: how even streams stay beside a long prompt, and what a step costs this process. */

import { EngineCore } from "../../../src/engine/engine-core.ts";
import type { ModelRunner, StepLimits } from "../../../src/models/step.ts";
import { FakeRunner } from "../fake-runner.ts";
import { GREEDY, promptOf, request } from "../requests.ts";
import { SimulatedRunner } from "./runner.ts";

const STEP_MS = 2;
const TOKEN_MS = 0.05;

export interface GapResult {
  readonly streams: number;
  readonly promptTokens: number;
  /** Steps in which the prompt was computed, and the fewest tokens of it in one of them. */
  readonly promptSteps: number;
  readonly promptTokensPerStepMin: number;
  /** Longest time between two tokens of a stream, in steps and in virtual milliseconds. */
  readonly gapSteps: number;
  readonly gapMs: number;
  /** Virtual milliseconds of a step that uses the whole budget. */
  readonly fullStepMs: number;
}

/** Streams that generate while a prompt of 30,000 tokens is computed beside them. */
export function measureGap(streams = 15, promptTokens = 30_000): GapResult {
  const tokensMax = 512;
  const runner = new SimulatedRunner({
    tokensMax,
    sequencesMax: streams + 1,
    rowsMax: streams + 1,
    blockSize: 32,
    blockCount: 4096,
    blocksPerSequenceMax: 1024,
    contextLength: 32_768,
  });
  const core = new EngineCore(runner, { prefixCache: true });
  for (let id = 1; id <= streams; id++) {
    core.submit(request(id, { promptTokens: promptOf(40, id), maxTokens: 20_000 }));
  }
  while (core.statistics().generatedTokens < streams * 5) core.step();
  core.submit(request(99, { promptTokens: promptOf(promptTokens, 99), maxTokens: 1 }));
  const sinceSteps = new Map<number, number>();
  const sinceMs = new Map<number, number>();
  let gapSteps = 0;
  let gapMs = 0;
  let promptSteps = 0;
  let promptTokensPerStepMin = tokensMax;
  for (let ended = false; !ended; promptSteps++) {
    const before = core.statistics().promptTokens;
    const report = core.step();
    const stepMs = STEP_MS + runner.tokens * TOKEN_MS;
    ended = report.ends.some(({ id }) => id === 99);
    if (!ended)
      promptTokensPerStepMin = Math.min(promptTokensPerStepMin, core.statistics().promptTokens - before);
    for (let id = 1; id <= streams; id++) {
      const steps = (sinceSteps.get(id) ?? 0) + 1;
      const ms = (sinceMs.get(id) ?? 0) + stepMs;
      const came = report.ids.includes(id);
      gapSteps = Math.max(gapSteps, steps);
      gapMs = Math.max(gapMs, ms);
      sinceSteps.set(id, came ? 0 : steps);
      sinceMs.set(id, came ? 0 : ms);
    }
  }
  const fullStepMs = STEP_MS + tokensMax * TOKEN_MS;
  return { streams, promptTokens, promptSteps, promptTokensPerStepMin, gapSteps, gapMs, fullStepMs };
}

export interface StepCost {
  readonly running: number;
  readonly waiting: number;
  /** Medians of real microseconds: of a step, and of it for each running sequence. */
  readonly stepUs: number;
  readonly sequenceUs: number;
}

/** A model that takes no time: all there is to measure is the engine. */
class NoModel implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: ModelRunner["inputs"];
  readonly outputs: ModelRunner["outputs"];

  constructor(changes: Partial<StepLimits>) {
    ({
      limits: this.limits,
      inputs: this.inputs,
      outputs: this.outputs,
    } = new FakeRunner({ limits: changes }));
    this.outputs.tokens.fill(1);
  }

  run(): void {}

  close(): void {}
}

/** What a step of so many generating sequences costs, each with a context of about a thousand tokens. */
export function measureStep(running: number, waiting: number, steps = 400): StepCost {
  const blockSize = 32;
  const contextLength = 2048;
  const core = new EngineCore(
    new NoModel({
      sequencesMax: running,
      rowsMax: running,
      tokensMax: 65_536,
      blockSize,
      blocksPerSequenceMax: contextLength / blockSize,
      blockCount: (running * contextLength) / blockSize + 1,
      contextLength,
    }),
    { prefixCache: true },
  );
  for (let id = 1; id <= running + waiting; id++) {
    // Each has a text of its own, so that nobody is held for another's prefix.
    const promptTokens = Int32Array.from({ length: 1000 }, (_, index) => (id * 7 + index * (id % 59)) % 64);
    core.submit(request(id, { promptTokens, maxTokens: 1000, sampling: GREEDY }));
  }
  while (core.step().ids.length < running);
  const times: number[] = [];
  for (let step = 0; step < steps; step++) {
    const started = performance.now();
    core.step();
    times.push((performance.now() - started) * 1000);
  }
  const { running: still } = core.statistics();
  if (still !== running) throw new Error(`${still} sequences run, not ${running}`);
  const stepUs = times.sort((a, b) => a - b)[Math.floor(steps / 2)]!;
  return { running, waiting, stepUs, sequenceUs: stepUs / running };
}
