/**
 * A model for long simulations: as strict about blocks as `FakeRunner`, at a fraction of its cost. Each slot keeps the
 * hash of the whole text up to it, so a next token costs one look at each block of its sequence: the first slot of a
 * block must continue the last slot of the block before, or somebody else has written there.
 */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../../src/graph/ops.ts";
import type { ModelRunner, StepInputs, StepLimits, StepOutputs } from "../../../src/models/step.ts";
import { EMPTY_HISTORY, FakeRunner, mix, spread } from "../fake-runner.ts";

export class SimulatedRunner implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  /** Of the last step. */
  tokens = 0;
  /** Called before each step; may throw, as a device does. */
  beforeStep: () => void = () => {};
  readonly #hashAt: Uint32Array;
  /** Of the first slot of each block: the hash it continued. */
  readonly #continuedBy: Uint32Array;

  constructor(changes: Partial<StepLimits>) {
    const { limits, inputs, outputs } = new FakeRunner({ limits: changes });
    this.limits = limits;
    this.inputs = inputs;
    this.outputs = outputs;
    this.#hashAt = new Uint32Array(limits.blockCount * limits.blockSize);
    this.#continuedBy = new Uint32Array(limits.blockCount);
  }

  run(tokens: number, sequences: number, rows: number): void {
    this.beforeStep();
    this.tokens = tokens;
    const { sequenceStarts, contextLengths, logitRows } = this.inputs;
    for (let sequence = 0; sequence < sequences; sequence++) {
      const from = sequenceStarts[sequence]!;
      const to = sequenceStarts[sequence + 1]!;
      this.#store(sequence, from, to, contextLengths[sequence]! - (to - from));
    }
    let sequence = 0;
    let checked = -1;
    for (let row = 0; row < rows; row++) {
      const tokenRow = logitRows[row]!;
      while (tokenRow >= sequenceStarts[sequence + 1]!) sequence++;
      const length = contextLengths[sequence]! - (sequenceStarts[sequence + 1]! - 1 - tokenRow);
      if (checked !== sequence) this.#checkChain(sequence, contextLengths[sequence]!);
      checked = sequence;
      this.#sample(row, this.#hashAt[this.#slot(sequence, length - 1)]!);
    }
  }

  close(): void {}

  #block(sequence: number, position: number): number {
    const { blocksPerSequenceMax, blockSize } = this.limits;
    return this.inputs.blockTables[sequence * blocksPerSequenceMax + Math.floor(position / blockSize)]!;
  }

  #slot(sequence: number, position: number): number {
    const { blockSize } = this.limits;
    return this.#block(sequence, position) * blockSize + (position % blockSize);
  }

  #store(sequence: number, from: number, to: number, start: number): void {
    const { tokenIds, slotMapping, positions } = this.inputs;
    const { blockSize } = this.limits;
    let hash = start === 0 ? EMPTY_HISTORY : this.#hashAt[this.#slot(sequence, start - 1)]!;
    for (let row = from; row < to; row++) {
      const position = start + row - from;
      const slot = this.#slot(sequence, position);
      if (positions[row] !== position || slotMapping[row] !== slot || slot < blockSize) {
        throw new Error(
          `row ${row} is at position ${positions[row]} and slot ${slotMapping[row]}, not ${position} and ${slot}`,
        );
      }
      if (position % blockSize === 0) this.#continuedBy[slot / blockSize] = hash;
      hash = mix(hash, tokenIds[row]!);
      this.#hashAt[slot] = hash;
    }
  }

  /** Whether the blocks of a sequence continue each other. */
  #checkChain(sequence: number, length: number): void {
    const { blockSize } = this.limits;
    let hash = EMPTY_HISTORY;
    for (let position = 0; position < length; position += blockSize) {
      const block = this.#block(sequence, position);
      if (this.#continuedBy[block] !== hash)
        throw new Error(`block ${block} was overwritten under sequence ${sequence}`);
      hash = this.#hashAt[block * blockSize + blockSize - 1]!;
    }
  }

  #sample(row: number, history: number): void {
    const { samplingParameters: words, adjustmentStarts, adjustmentTokens, adjustmentAddends } = this.inputs;
    const base = row * SAMPLING_PARAMETER_WORDS;
    const forced = words[base + SAMPLING_PARAMETER.forced_token]!;
    const count = words[base + SAMPLING_PARAMETER.logprob_count]!;
    let hash = history;
    for (let index = adjustmentStarts[row]!; index < adjustmentStarts[row + 1]!; index++) {
      hash = mix(mix(hash, adjustmentTokens[index]!), Math.round(adjustmentAddends[index]! * 1024));
    }
    if (words[base + SAMPLING_PARAMETER.temperature] !== 0) {
      hash = mix(hash, words[base + SAMPLING_PARAMETER.seed_low]!);
      hash = mix(hash, words[base + SAMPLING_PARAMETER.position]!);
    }
    const { vocabularySize, topLogprobsMax } = this.limits;
    this.outputs.tokens[row] = forced >= 0 ? forced : spread(hash) % vocabularySize;
    this.outputs.logprobs[row] = -(spread(history) % 1000) / 100;
    for (let index = 0; index < count; index++) {
      const at = row * topLogprobsMax + index;
      this.outputs.topTokens[at] = (spread(history) + index) % vocabularySize;
      this.outputs.topLogprobs[at] = -index;
    }
  }
}
