/** Lays a plan out in the flat arrays of a step. Knows sequences and the layout, no policy and no results. */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../graph/ops.ts";
import type { StepInputs, StepLimits } from "../models/step.ts";
import type { Plan } from "./plan.ts";
import type { Sequence } from "./sequence.ts";

export class StepWriter {
  readonly #inputs: StepInputs;
  readonly #limits: StepLimits;
  /** Which table each row holds: the request, its admission, and how many of its blocks are written. */
  readonly #tableIds: Float64Array;
  readonly #tableAdmissions: Int32Array;
  readonly #tableBlocks: Int32Array;

  constructor(inputs: StepInputs, limits: StepLimits) {
    this.#inputs = inputs;
    this.#limits = limits;
    this.#tableIds = new Float64Array(limits.sequencesMax).fill(Number.NaN);
    this.#tableAdmissions = new Int32Array(limits.sequencesMax);
    this.#tableBlocks = new Int32Array(limits.sequencesMax);
  }

  /**
   * Fills the inputs for `plan`. Rows of logits lie in batch order; within a sequence its scored prompt positions
   * come before the row it samples from. Columns of a block table beyond the sequence's blocks keep what they
   * had: no context reaches them.
   */
  write(plan: Plan): void {
    const inputs = this.#inputs;
    let token = 0;
    let row = 0;
    let adjustment = 0;
    inputs.adjustmentStarts[0] = 0;
    for (let index = 0; index < plan.sequences.length; index++) {
      const sequence = plan.sequences[index]!;
      const start = plan.starts[index]!;
      const count = plan.counts[index]!;
      inputs.sequenceStarts[index] = token;
      inputs.contextLengths[index] = start + count;
      this.#writeTable(index, sequence);
      writeTokens(inputs, token, sequence, start, count, this.#limits.blockSize);
      const scoreFrom = Math.max(start, sequence.scored);
      for (let scored = 0; scored < plan.scoreRows[index]!; scored++) {
        const position = scoreFrom + scored;
        inputs.logitRows[row] = token + position - start;
        writeScoredRow(inputs, row, sequence, position);
        inputs.adjustmentStarts[++row] = adjustment;
      }
      if (plan.samples[index] === true) {
        inputs.logitRows[row] = token + count - 1;
        writeSampledRow(inputs, row, sequence);
        if (sequence.adjustments !== null) adjustment = sequence.adjustments.write(inputs, adjustment);
        inputs.adjustmentStarts[++row] = adjustment;
      }
      token += count;
    }
    inputs.sequenceStarts[plan.sequences.length] = token;
  }

  /** A table only grows between admissions, so the row that held it in the last step lacks the new blocks alone. */
  #writeTable(row: number, { id, admissions, blocks, blockCount }: Sequence): void {
    const isSame = this.#tableIds[row] === id && this.#tableAdmissions[row] === admissions;
    const first = row * this.#limits.blocksPerSequenceMax;
    const tables = this.#inputs.blockTables;
    for (let column = isSame ? this.#tableBlocks[row]! : 0; column < blockCount; column++) {
      tables[first + column] = blocks[column]!;
    }
    this.#tableIds[row] = id;
    this.#tableAdmissions[row] = admissions;
    this.#tableBlocks[row] = blockCount;
  }
}

function writeTokens(
  inputs: StepInputs,
  at: number,
  sequence: Sequence,
  start: number,
  count: number,
  blockSize: number,
): void {
  for (let offset = 0; offset < count; offset++) {
    const position = start + offset;
    const block = Math.floor(position / blockSize);
    inputs.tokenIds[at + offset] = sequence.tokens[position]!;
    inputs.positions[at + offset] = position;
    inputs.slotMapping[at + offset] = sequence.blocks[block]! * blockSize + (position - block * blockSize);
  }
}

/** The row that draws the next token. The counter of the generator is the index the drawn token will have. */
function writeSampledRow(inputs: StepInputs, row: number, sequence: Sequence): void {
  const { sampling } = sequence.request;
  const base = row * SAMPLING_PARAMETER_WORDS;
  const words = inputs.samplingParameters;
  const floats = inputs.samplingParametersF32;
  floats[base + SAMPLING_PARAMETER.temperature] = sampling.temperature;
  words[base + SAMPLING_PARAMETER.top_k] = sampling.topK;
  floats[base + SAMPLING_PARAMETER.top_p] = sampling.topP;
  floats[base + SAMPLING_PARAMETER.min_p] = sampling.minP;
  words[base + SAMPLING_PARAMETER.seed_low] = sequence.seedLow;
  words[base + SAMPLING_PARAMETER.seed_high] = sequence.seedHigh;
  words[base + SAMPLING_PARAMETER.position] = sequence.length;
  words[base + SAMPLING_PARAMETER.logprob_count] = sampling.logprobs;
  words[base + SAMPLING_PARAMETER.forced_token] = -1;
}

/**
 * The row that scores the prompt token after `position`: it is forced, nothing is drawn. Where only the hidden state
 * is wanted any token will do.
 */
function writeScoredRow(inputs: StepInputs, row: number, sequence: Sequence, position: number): void {
  const base = row * SAMPLING_PARAMETER_WORDS;
  const words = inputs.samplingParameters;
  const floats = inputs.samplingParametersF32;
  floats[base + SAMPLING_PARAMETER.temperature] = 0;
  words[base + SAMPLING_PARAMETER.top_k] = 0;
  floats[base + SAMPLING_PARAMETER.top_p] = 1;
  floats[base + SAMPLING_PARAMETER.min_p] = 0;
  words[base + SAMPLING_PARAMETER.seed_low] = 0;
  words[base + SAMPLING_PARAMETER.seed_high] = 0;
  words[base + SAMPLING_PARAMETER.position] = position + 1;
  words[base + SAMPLING_PARAMETER.logprob_count] = sequence.request.promptLogprobs;
  words[base + SAMPLING_PARAMETER.forced_token] =
    sequence.pooled === null ? sequence.tokens[position + 1]! : 0;
}
