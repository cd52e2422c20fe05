/** A model of the benchmarks' tests, which knows where every token was stored. */

import { expect } from "bun:test";
import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../../src/graph/ops.ts";
import type { ModelRunner, StepInputs, StepLimits, StepOutputs } from "../../../src/models/step.ts";

export interface CheckingRunnerOptions {
  readonly sequences: number;
  readonly blocks: number;
  readonly tokensMax: number;
  readonly blockSize: number;
  /** Whether a place may be stored to again, as after going back. */
  readonly mayOverwrite?: boolean;
}

/**
 * Stands in for a model: checks every step against its own record of what was stored where, and samples
 * `(last token + 1) % vocabulary`, so that a decode step that feeds back the wrong token is noticed.
 */
export class CheckingRunner implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  readonly steps: { tokens: number; sequences: number; rows: number }[] = [];
  /** Token stored at each slot. */
  readonly stored = new Map<number, number>();
  nowMs = 0;

  readonly #mayOverwrite: boolean;

  constructor({ sequences, blocks, tokensMax, blockSize, mayOverwrite = false }: CheckingRunnerOptions) {
    this.#mayOverwrite = mayOverwrite;
    this.limits = {
      tokensMax,
      sequencesMax: sequences,
      rowsMax: sequences,
      adjustmentsMax: 0,
      topLogprobsMax: 1,
      blockSize,
      blockCount: blocks,
      blocksPerSequenceMax: blocks,
      vocabularySize: 1000,
      contextLength: 1_000_000,
    };
    const parameters = new ArrayBuffer(sequences * SAMPLING_PARAMETER_WORDS * 4);
    this.inputs = {
      tokenIds: new Int32Array(tokensMax),
      positions: new Int32Array(tokensMax),
      slotMapping: new Int32Array(tokensMax),
      sequenceStarts: new Int32Array(sequences + 1),
      contextLengths: new Int32Array(sequences),
      blockTables: new Int32Array(sequences * blocks),
      logitRows: new Int32Array(sequences),
      samplingParameters: new Int32Array(parameters),
      samplingParametersF32: new Float32Array(parameters),
      adjustmentStarts: new Int32Array(sequences + 1),
      adjustmentTokens: new Int32Array(0),
      adjustmentMultipliers: new Float32Array(0),
      adjustmentAddends: new Float32Array(0),
    };
    this.outputs = {
      tokens: new Int32Array(sequences),
      logprobs: new Float32Array(sequences),
      topTokens: new Int32Array(sequences),
      topLogprobs: new Float32Array(sequences),
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
      if (!this.#mayOverwrite) expect(this.stored.has(slot)).toBe(false);
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
