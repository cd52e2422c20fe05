/**
 * The matrix of circumstances under which one request must get the same tokens: what the prefix cache holds, who else
 * is in the batch, whether it is preempted, in how many chunks its prompt is computed. Runs one model through it.
 */

import { EngineCore } from "../../src/engine/engine-core.ts";
import type { GenerateRequest, SamplingParameters, Usage } from "../../src/engine/messages.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import type { ModelRunner, StepLimits } from "../../src/models/step.ts";
import type { KvCacheType } from "../../src/models/step-limits.ts";
import { finish, GREEDY, Outcomes, request } from "./requests.ts";

export interface Circumstances {
  readonly cache: "cold" | "warm" | "evicted";
  readonly company: "alone" | "batch";
  readonly preempted: boolean;
  readonly chunks: boolean;
}

export const ALL_CIRCUMSTANCES: readonly Circumstances[] = (["cold", "warm", "evicted"] as const).flatMap(
  (cache) =>
    (["alone", "batch"] as const).flatMap((company) =>
      [false, true].flatMap((preempted) =>
        [false, true].map((chunks) => ({ cache, company, preempted, chunks })),
      ),
    ),
);

export interface Target {
  readonly promptLength: number;
  readonly sampling: SamplingParameters;
}

const SAMPLED: SamplingParameters = {
  ...GREEDY,
  temperature: 0.9,
  topP: 0.95,
  seed: 42n,
  repetitionPenalty: 1.2,
  frequencyPenalty: 0.1,
  dry: { multiplier: 0.8, base: 1.75, allowedLength: 2, breakers: [5] },
};

/** Prompts around the ends of blocks, and longer ones, some drawn with every rule of sampling there is. */
export function targetsFor(blockSize: number): readonly Target[] {
  const lengths = [blockSize - 1, blockSize, blockSize + 1, 2 * blockSize, 4 * blockSize + 5];
  return [
    ...lengths.map((promptLength) => ({ promptLength, sampling: GREEDY })),
    ...[2 * blockSize, 4 * blockSize + 5].map((promptLength) => ({ promptLength, sampling: SAMPLED })),
  ];
}

/** In blocks of the paged cache; a context of 12 blocks. */
const CONTEXT_BLOCKS = 12;
const PLENTY_BLOCKS = 48;
const GENERATED_BLOCKS = 3;

/** One way to run a model, and the model loaded for it. */
export interface MachineModel {
  readonly paged: boolean;
  readonly threads: number;
  readonly model: LoadedModel;
}

/** The model with a paged cache and without, on one thread and on two. */
export async function loadMachines(
  path: string,
  blockSize: number,
  kvCacheType: KvCacheType = "f16",
): Promise<readonly MachineModel[]> {
  const contextLength = CONTEXT_BLOCKS * blockSize;
  const machines: MachineModel[] = [];
  for (const paged of [true, false]) {
    for (const threads of [1, 2]) {
      const options = {
        path,
        threads,
        sequencesMax: 6,
        tokensMax: contextLength,
        contextLengthMax: contextLength,
        kvCacheType,
        blockSize,
        pagedAttention: paged,
        mmap: true,
      } as const;
      machines.push({ paged, threads, model: await loadModel(options) });
    }
  }
  return machines;
}

export function closeMachines(machines: readonly MachineModel[]): void {
  for (const { model } of machines) model.close();
}

interface Course {
  readonly tokens: readonly number[];
  readonly usage: Usage;
  readonly preemptions: number;
  readonly steps: number;
}

/** The same model with tighter limits. */
function limited(runner: ModelRunner, changes: Partial<StepLimits>): ModelRunner {
  const { inputs, outputs } = runner;
  return {
    limits: { ...runner.limits, ...changes },
    inputs,
    outputs,
    run: (tokens, sequences, rows) => runner.run(tokens, sequences, rows),
    close: () => {},
  };
}

/** Prompts that have nothing in common with each other. */
function prompt(length: number, seed: number, vocabularySize: number): Int32Array {
  return Int32Array.from({ length }, (_, index) => {
    const bits = Math.imul(index + 1, 0x9e3779b1) ^ Math.imul(seed + 1, 0x85ebca6b);
    return 3 + ((bits >>> 7) % (vocabularySize - 3));
  });
}

/** @param blockSize of the paged cache, also where the runner is not paged, so that lengths are the same. */
function runTarget(
  runner: ModelRunner,
  blockSize: number,
  target: Target,
  { cache, company, preempted, chunks }: Circumstances,
): Course {
  const paged = runner.limits.blockSize === blockSize;
  const { vocabularySize } = runner.limits;
  const companions = company === "batch" ? 2 : 0;
  // Room for the target and its company at first, but not for their growth.
  const tight = 14 + companions;
  const core = new EngineCore(
    limited(runner, {
      ...(chunks ? { tokensMax: blockSize + 1 } : {}),
      ...(paged ? { blockCount: (preempted ? tight : PLENTY_BLOCKS) + 1 } : {}),
    }),
    { prefixCache: true, secret: new Uint8Array(32) },
  );
  const outcomes = new Outcomes();
  let nextId = 1;
  const submit = (length: number, seed: number, changes: Partial<GenerateRequest>): number => {
    const id = nextId++;
    core.submit(request(id, { promptTokens: prompt(length, seed, vocabularySize), ...changes }));
    return id;
  };
  const wanted = {
    maxTokens: GENERATED_BLOCKS * blockSize,
    sampling: target.sampling,
    priority: "batch",
  } as const;

  if (cache !== "cold") {
    submit(target.promptLength, 0, wanted);
    finish(core, outcomes);
  }
  if (cache === "evicted") {
    for (let filler = 0; filler < PLENTY_BLOCKS / CONTEXT_BLOCKS + 2; filler++) {
      submit(CONTEXT_BLOCKS * blockSize - 1, 100 + filler, { maxTokens: 1 });
      finish(core, outcomes);
    }
  }
  const before = core.statistics();
  if (preempted) {
    submit(7 * blockSize + 4, 50, { maxTokens: 4 * blockSize, priority: "interactive" });
  }
  for (let index = 0; index < companions; index++) {
    submit(index + 2, 60 + index, {
      maxTokens: 2 * blockSize,
      priority: "interactive",
      sampling: { ...GREEDY, temperature: index, seed: 7n },
    });
  }
  const id = submit(target.promptLength, 0, wanted);
  finish(core, outcomes);
  core.checkLedger();
  const { tokens, end } = outcomes.of(id);
  if (end?.type !== "finish") throw new Error(`the target ended with ${JSON.stringify(end)}`);
  const after = core.statistics();
  return {
    tokens: [...tokens],
    usage: end.usage,
    preemptions: after.preemptions - before.preemptions,
    steps: after.steps - before.steps,
  };
}

/**
 * Runs every target in every cell on every machine and compares it with the target's first run. Throws where one
 * differs, with the cell, or where a cell was not what its name says: cached, preempted or in chunks.
 */
export function compareCells(
  machines: readonly MachineModel[],
  blockSize: number,
  targets: readonly Target[],
  circumstances: readonly Circumstances[],
): { readonly cells: number; readonly texts: ReadonlySet<string> } {
  let cells = 0;
  const texts = new Set<string>();
  for (const target of targets) {
    let first: string | null = null;
    for (const { paged, threads, model } of machines) {
      for (const cell of circumstances) {
        // Without paging nobody ever needs a block more, and nobody loses one.
        if (cell.preempted && !paged) continue;
        const course = runTarget(model, blockSize, target, cell);
        const text = course.tokens.join();
        first ??= text;
        const problem =
          text === first ? problemOf(course, cell, target, paged, blockSize) : `${text} is not ${first}`;
        if (problem !== null)
          throw new Error(`${JSON.stringify({ paged, threads, ...cell, ...target })}: ${problem}`);
        cells += 1;
      }
    }
    texts.add(first ?? "");
  }
  return { cells, texts };
}

/** Whether a run was what its cell says. */
function problemOf(
  { usage, preemptions, steps, tokens }: Course,
  { cache, preempted, chunks }: Circumstances,
  { promptLength }: Target,
  paged: boolean,
  blockSize: number,
): string | null {
  const cacheable = Math.floor((promptLength - 1) / blockSize) * blockSize;
  const cached = cache === "warm" && paged ? cacheable : 0;
  if (usage.promptTokens !== promptLength) return `the prompt is said to have ${usage.promptTokens} tokens`;
  if (usage.cachedTokens !== cached) return `${usage.cachedTokens} tokens were cached, not ${cached}`;
  if (preemptions > 0 !== preempted) return `there were ${preemptions} preemptions`;
  if (chunks && promptLength - cached > blockSize + 1 && steps <= tokens.length)
    return "the prompt was not cut";
  return null;
}
