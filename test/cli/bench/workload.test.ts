import { describe, expect, test } from "bun:test";
import { blocksOfWorkload, runWorkload, type Workload } from "../../../src/cli/bench/workload.ts";
import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../../src/graph/ops.ts";
import type { ModelRunner, StepInputs, StepLimits, StepOutputs } from "../../../src/models/step.ts";

/**
 * Stands in for a model: checks every step against its own record of what was stored where, and samples
 * `(last token + 1) % vocabulary`, so that a decode step that feeds back the wrong token is noticed.
 */
class CheckingRunner implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  readonly steps: { tokens: number; sequences: number; rows: number }[] = [];
  /** Token stored at each slot. */
  readonly stored = new Map<number, number>();
  nowMs = 0;

  constructor(workload: Workload, tokensMax: number, blockSize: number) {
    const blocks = blocksOfWorkload(workload, blockSize);
    this.limits = {
      tokensMax,
      sequencesMax: workload.batch,
      rowsMax: workload.batch,
      adjustmentsMax: 0,
      topLogprobsMax: 1,
      blockSize,
      blockCount: blocks,
      blocksPerSequenceMax: blocks,
      vocabularySize: 1000,
      contextLength: 1_000_000,
    };
    const parameters = new ArrayBuffer(workload.batch * SAMPLING_PARAMETER_WORDS * 4);
    this.inputs = {
      tokenIds: new Int32Array(tokensMax),
      positions: new Int32Array(tokensMax),
      slotMapping: new Int32Array(tokensMax),
      sequenceStarts: new Int32Array(workload.batch + 1),
      contextLengths: new Int32Array(workload.batch),
      blockTables: new Int32Array(workload.batch * blocks),
      logitRows: new Int32Array(workload.batch),
      samplingParameters: new Int32Array(parameters),
      samplingParametersF32: new Float32Array(parameters),
      adjustmentStarts: new Int32Array(workload.batch + 1),
      adjustmentTokens: new Int32Array(0),
      adjustmentMultipliers: new Float32Array(0),
      adjustmentAddends: new Float32Array(0),
    };
    this.outputs = {
      tokens: new Int32Array(workload.batch),
      logprobs: new Float32Array(workload.batch),
      topTokens: new Int32Array(workload.batch),
      topLogprobs: new Float32Array(workload.batch),
      hidden: new Float32Array(0),
    };
  }

  run(tokens: number, sequences: number, rows: number): void {
    const { inputs, limits } = this;
    expect(tokens).toBeLessThanOrEqual(limits.tokensMax);
    expect(inputs.sequenceStarts[sequences]).toBe(tokens);
    for (let sequence = 0; sequence < sequences; sequence++) this.#checkSequence(sequence);
    for (let row = 0; row < rows; row++) {
      const base = row * SAMPLING_PARAMETER_WORDS;
      expect(inputs.samplingParametersF32[base + SAMPLING_PARAMETER.temperature]).toBe(0);
      expect(inputs.samplingParameters[base + SAMPLING_PARAMETER.forced_token]).toBe(-1);
      this.outputs.tokens[row] = (inputs.tokenIds[inputs.logitRows[row]!]! + 1) % limits.vocabularySize;
    }
    this.steps.push({ tokens, sequences, rows });
    this.nowMs += tokens;
  }

  /** Every key a sequence can see must have been stored, in blocks that are its own. */
  #checkSequence(sequence: number): void {
    const { inputs, limits } = this;
    const table = inputs.blockTables.subarray(sequence * limits.blocksPerSequenceMax);
    const first = inputs.sequenceStarts[sequence]!;
    const last = inputs.sequenceStarts[sequence + 1]!;
    for (let row = first; row < last; row++) {
      const position = inputs.positions[row]!;
      const slot =
        table[Math.floor(position / limits.blockSize)]! * limits.blockSize + (position % limits.blockSize);
      expect(inputs.slotMapping[row]).toBe(slot);
      expect(this.stored.has(slot)).toBe(false);
      expect(slot).toBeGreaterThanOrEqual(limits.blockSize);
      expect(slot).toBeLessThan(limits.blockCount * limits.blockSize);
      this.stored.set(slot, inputs.tokenIds[row]!);
    }
    const context = inputs.contextLengths[sequence]!;
    expect(inputs.positions[last - 1]).toBe(context - 1);
    for (let position = 0; position < context; position++) {
      const slot =
        table[Math.floor(position / limits.blockSize)]! * limits.blockSize + (position % limits.blockSize);
      expect(this.stored.has(slot)).toBe(true);
    }
  }

  close(): void {}
}

function run(workload: Workload, tokensMax: number, blockSize = 8) {
  const runner = new CheckingRunner(workload, tokensMax, blockSize);
  const times = runWorkload(runner, workload, () => runner.nowMs);
  return { runner, times };
}

describe("a workload", () => {
  test("of one sequence: full prefill steps, then one token a step", () => {
    const { runner, times } = run({ batch: 1, depth: 0, promptLength: 20, generatedLength: 5, seed: 1n }, 8);
    expect(runner.steps).toEqual([
      { tokens: 8, sequences: 1, rows: 0 },
      { tokens: 8, sequences: 1, rows: 0 },
      { tokens: 4, sequences: 1, rows: 1 },
      ...Array.from({ length: 5 }, () => ({ tokens: 1, sequences: 1, rows: 1 })),
    ]);
    expect(times).toEqual({ prefillSeconds: 0.02, decodeSeconds: 0.005 });
  });

  test("of several sequences: prompts share steps, every decode step holds the whole batch", () => {
    const { runner } = run({ batch: 3, depth: 0, promptLength: 10, generatedLength: 4, seed: 1n }, 16);
    expect(runner.steps.slice(0, 2)).toEqual([
      { tokens: 16, sequences: 2, rows: 1 },
      { tokens: 14, sequences: 2, rows: 2 },
    ]);
    expect(runner.steps.slice(2)).toEqual(
      Array.from({ length: 4 }, () => ({ tokens: 3, sequences: 3, rows: 3 })),
    );
  });

  test("whose prompts end exactly at a full step", () => {
    const { runner } = run({ batch: 2, depth: 0, promptLength: 8, generatedLength: 1, seed: 1n }, 16);
    expect(runner.steps).toEqual([
      { tokens: 16, sequences: 2, rows: 2 },
      { tokens: 2, sequences: 2, rows: 2 },
    ]);
  });

  test("at a depth computes what comes before first, and measures only the prompt and the decode", () => {
    const { runner, times } = run({ batch: 2, depth: 20, promptLength: 6, generatedLength: 3, seed: 1n }, 16);
    expect(runner.steps).toEqual([
      { tokens: 16, sequences: 1, rows: 0 },
      { tokens: 16, sequences: 2, rows: 0 },
      { tokens: 8, sequences: 1, rows: 0 },
      { tokens: 12, sequences: 2, rows: 2 },
      ...Array.from({ length: 3 }, () => ({ tokens: 2, sequences: 2, rows: 2 })),
    ]);
    expect(times).toEqual({ prefillSeconds: 0.012, decodeSeconds: 0.006 });
  });

  test("feeds each sequence its own token back", () => {
    const { runner } = run({ batch: 2, depth: 0, promptLength: 3, generatedLength: 6, seed: 9n }, 4, 16);
    for (const first of [16, 32]) {
      const tokens = Array.from({ length: 9 }, (_, index) => runner.stored.get(first + index)!);
      for (let index = 3; index < 9; index++) expect(tokens[index]).toBe((tokens[index - 1]! + 1) % 1000);
    }
  });

  test("has the prompt that its seed says, and another seed another", () => {
    const tokens = (seed: bigint) => [
      ...run({ batch: 1, depth: 0, promptLength: 50, generatedLength: 1, seed }, 64).runner.stored.values(),
    ];
    expect(tokens(7n)).toEqual(tokens(7n));
    expect(tokens(7n)).not.toEqual(tokens(8n));
    expect(tokens(7n)).not.toEqual(tokens(7n + (1n << 40n)));
    expect(new Set(tokens(7n)).size).toBeGreaterThan(30);
  });
});
