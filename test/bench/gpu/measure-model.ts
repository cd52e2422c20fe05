/**
 * Measures one model file on a CUDA device, in a process of its own: steps of decoding by batch and context, prompts
 * by length, with captured steps and without. Prints one JSON object. Keys and values are zeros: where they come from
 * costs nothing, and reading them costs the same.
 */

import type { ActivationPrecision } from "../../../src/graph/builder.ts";
import { loadModel } from "../../../src/models/load-model.ts";
import type { LoadedModel } from "../../../src/models/loaded-model.ts";
import { setRow } from "./step-rows.ts";

export interface DecodeCase {
  readonly batch: number;
  readonly context: number;
}

export interface Plan {
  readonly path: string;
  readonly decode: readonly DecodeCase[];
  readonly prefill: readonly number[];
  readonly steps: number;
  readonly prefillRepetitions: number;
  readonly activations: ActivationPrecision;
}

export interface DecodeTime extends DecodeCase {
  /** Of a captured step, median and best; absent where the cache has no room for the case. */
  readonly seconds?: number;
  readonly bestSeconds?: number;
  /** Of a step that is launched kernel by kernel. */
  readonly launchedSeconds?: number;
  /** Why there are no times. */
  readonly reason?: string;
}

export interface PrefillTime {
  readonly tokens: number;
  readonly seconds?: number;
  readonly reason?: string;
}

export interface ModelTimes {
  /** With what computes its products of many rows. */
  readonly device: string;
  readonly activations: ActivationPrecision;
  readonly loadSeconds: number;
  readonly uploadSeconds: number;
  readonly weightBytes: number;
  readonly kvBytes: number;
  readonly activationBytes: number;
  readonly workspaceBytes: number;
  readonly graphs: unknown;
  /** A step that computes nothing: the call, the first kernels, the wait. */
  readonly emptyStepSeconds: number;
  readonly decode: readonly DecodeTime[];
  readonly prefill: readonly PrefillTime[];
}

const WARM_STEPS = 3;

async function measure(plan: Plan): Promise<ModelTimes> {
  const contexts = plan.decode.map(({ context }) => context);
  const tokensMax = Math.max(...plan.prefill, ...plan.decode.map(({ batch }) => batch));
  const load = (graphBudgetBytes?: number): Promise<LoadedModel> =>
    loadModel({
      path: plan.path,
      device: { kind: "cuda", index: 0 },
      threads: 1,
      sequencesMax: Math.max(...plan.decode.map(({ batch }) => batch)),
      tokensMax,
      contextLengthMax: Math.max(...contexts, ...plan.prefill) + 1,
      kvCacheType: "f16",
      kvMemoryFraction: 1,
      blockSize: 32,
      mmap: true,
      activations: plan.activations,
      ...(graphBudgetBytes === undefined ? {} : { graphBudgetBytes }),
    });
  const launched = new Map<string, number>();
  const eager = await load(0);
  try {
    for (const one of plan.decode) {
      const times = decodeTimes(eager, one, Math.min(plan.steps, 10));
      if (typeof times !== "string") launched.set(keyOf(one), median(times));
    }
  } finally {
    eager.close();
  }
  const model = await load();
  try {
    const decode = plan.decode.map((one): DecodeTime => {
      const times = decodeTimes(model, one, plan.steps);
      if (typeof times === "string") return { ...one, reason: times };
      return {
        ...one,
        seconds: median(times),
        bestSeconds: Math.min(...times),
        launchedSeconds: launched.get(keyOf(one))!,
      };
    });
    const prefill = plan.prefill.map((tokens) => prefillTime(model, tokens, plan.prefillRepetitions));
    const empty = Array.from({ length: 50 }, () => timed(() => model.run(0, 0, 0)));
    const { info } = model;
    return {
      device: info.device ?? "",
      activations: info.activations,
      loadSeconds: info.loadSeconds,
      uploadSeconds: info.mapSeconds,
      weightBytes: info.weightBytes,
      kvBytes: info.kvBytes,
      activationBytes: info.activationBytes,
      workspaceBytes: info.workspaceBytes,
      graphs: model.graphTotals,
      emptyStepSeconds: median(empty),
      decode,
      prefill,
    };
  } finally {
    model.close();
  }
}

function keyOf({ batch, context }: DecodeCase): string {
  return `${batch} ${context}`;
}

/** Seconds of each step in which every sequence gets one token more than `context`; or why there is no room. */
function decodeTimes(model: LoadedModel, { batch, context }: DecodeCase, steps: number): number[] | string {
  const { inputs, limits } = model;
  const { blockSize, blocksPerSequenceMax } = limits;
  const perSequence = Math.ceil((context + 1) / blockSize);
  if (batch * perSequence > limits.blockCount - 1) {
    const fits = Math.floor((limits.blockCount - 1) / perSequence);
    return `the cache holds ${fits} sequences of this context`;
  }
  for (let sequence = 0; sequence < batch; sequence++) {
    inputs.tokenIds[sequence] = 3 + sequence;
    inputs.positions[sequence] = context;
    inputs.sequenceStarts[sequence] = sequence;
    inputs.contextLengths[sequence] = context + 1;
    const first = 1 + sequence * perSequence;
    for (let block = 0; block < perSequence; block++) {
      inputs.blockTables[sequence * blocksPerSequenceMax + block] = first + block;
    }
    inputs.slotMapping[sequence] =
      (first + Math.floor(context / blockSize)) * blockSize + (context % blockSize);
    setRow(inputs, sequence, sequence);
  }
  inputs.sequenceStarts[batch] = batch;
  const run = (): void => model.run(batch, batch, batch);
  for (let step = 0; step < WARM_STEPS; step++) run();
  return Array.from({ length: steps }, () => timed(run));
}

function prefillTime(model: LoadedModel, tokens: number, repetitions: number): PrefillTime {
  const { inputs, limits } = model;
  const blocks = Math.ceil(tokens / limits.blockSize);
  if (blocks > limits.blockCount - 1) return { tokens, reason: "the cache does not hold it" };
  for (let token = 0; token < tokens; token++) {
    inputs.tokenIds[token] = 3 + ((token * 7919) % (limits.vocabularySize - 3));
    inputs.positions[token] = token;
    inputs.slotMapping[token] = limits.blockSize + token;
  }
  inputs.sequenceStarts[0] = 0;
  inputs.sequenceStarts[1] = tokens;
  inputs.contextLengths[0] = tokens;
  for (let block = 0; block < blocks; block++) inputs.blockTables[block] = 1 + block;
  setRow(inputs, 0, tokens - 1);
  const run = (): void => model.run(tokens, 1, 1);
  run();
  return { tokens, seconds: median(Array.from({ length: repetitions }, () => timed(run))) };
}

function timed(action: () => void): number {
  const startMs = performance.now();
  action();
  return (performance.now() - startMs) / 1000;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)]!;
}

if (import.meta.main) {
  const plan = JSON.parse(process.argv[2] ?? "") as Plan;
  process.stdout.write(JSON.stringify(await measure(plan)));
}
