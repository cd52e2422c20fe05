/**
 * A model without a model. It stores tokens in the slots it is told and reads histories back through the block
 * tables, as attention would, and draws the next token as a hash of what it read: any error in the bookkeeping
 * of blocks changes the text. It checks every rule of the step inputs and throws when one is broken.
 */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../src/graph/ops.ts";
import type { ModelRunner, StepInputs, StepLimits, StepOutputs } from "../../src/models/step.ts";

export const FAKE_LIMITS: StepLimits = {
  tokensMax: 32,
  sequencesMax: 8,
  rowsMax: 8,
  adjustmentsMax: 4096,
  topLogprobsMax: 4,
  blockSize: 4,
  blockCount: 257,
  blocksPerSequenceMax: 256,
  vocabularySize: 64,
  contextLength: 1024,
};

export interface FakeRunnerOptions {
  readonly limits?: Partial<StepLimits>;
  /** A step that computes this token calls the function, which may throw, block or end the process. */
  readonly traps?: ReadonlyMap<number, () => void>;
  /** Tokens from this one on are never drawn; the whole vocabulary when absent. */
  readonly drawnMax?: number;
  /** Time a step takes, spent busily. */
  readonly stepMs?: number;
}

/** One step of FNV-1a over a 32-bit word. */
export function mix(hash: number, word: number): number {
  return Math.imul(hash ^ word, 0x01000193) >>> 0;
}

export const EMPTY_HISTORY = 0x811c9dc5;

/** Bits of a hash, well spread. */
export function spread(hash: number): number {
  let bits = hash;
  bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return (bits ^ (bits >>> 16)) >>> 0;
}

/** The token after a history, for greedy requests without adjustments. */
export function fakeNextToken(history: Iterable<number>, vocabularySize: number): number {
  let hash = EMPTY_HISTORY;
  for (const token of history) hash = mix(hash, token);
  return spread(hash) % vocabularySize;
}

export const FAKE_WIDTH = 4;

/** The hidden state after a history: numbers from -1 to 1. */
export function fakeHidden(history: Iterable<number>): number[] {
  let hash = EMPTY_HISTORY;
  for (const token of history) hash = mix(hash, token);
  return hiddenOf(hash);
}

function hiddenOf(history: number): number[] {
  return Array.from({ length: FAKE_WIDTH }, (_, index) => (spread(mix(history, index)) >>> 8) / 2 ** 23 - 1);
}

export class FakeRunner implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  /** Of the last step. */
  tokens = 0;
  sequences = 0;
  rows = 0;
  steps = 0;
  closed = false;
  readonly #options: FakeRunnerOptions;
  readonly #tokenAt: Int32Array;
  readonly #positionAt: Int32Array;

  constructor(options: FakeRunnerOptions = {}) {
    const limits = { ...FAKE_LIMITS, ...options.limits };
    const parameters = new ArrayBuffer(limits.rowsMax * SAMPLING_PARAMETER_WORDS * 4);
    this.#options = options;
    this.limits = limits;
    this.inputs = {
      tokenIds: new Int32Array(limits.tokensMax),
      positions: new Int32Array(limits.tokensMax),
      slotMapping: new Int32Array(limits.tokensMax),
      sequenceStarts: new Int32Array(limits.sequencesMax + 1),
      contextLengths: new Int32Array(limits.sequencesMax),
      blockTables: new Int32Array(limits.sequencesMax * limits.blocksPerSequenceMax),
      logitRows: new Int32Array(limits.rowsMax),
      samplingParameters: new Int32Array(parameters),
      samplingParametersF32: new Float32Array(parameters),
      adjustmentStarts: new Int32Array(limits.rowsMax + 1),
      adjustmentTokens: new Int32Array(limits.adjustmentsMax),
      adjustmentMultipliers: new Float32Array(limits.adjustmentsMax),
      adjustmentAddends: new Float32Array(limits.adjustmentsMax),
    };
    this.outputs = {
      tokens: new Int32Array(limits.rowsMax),
      logprobs: new Float32Array(limits.rowsMax),
      topTokens: new Int32Array(limits.rowsMax * limits.topLogprobsMax),
      topLogprobs: new Float32Array(limits.rowsMax * limits.topLogprobsMax),
      hidden: new Float32Array(limits.rowsMax * FAKE_WIDTH),
    };
    this.#tokenAt = new Int32Array(limits.blockCount * limits.blockSize).fill(-1);
    this.#positionAt = new Int32Array(limits.blockCount * limits.blockSize).fill(-1);
  }

  run(tokens: number, sequences: number, rows: number): void {
    const { tokensMax, sequencesMax, rowsMax } = this.limits;
    check(!this.closed, "run after close");
    check(tokens >= 1 && tokens <= tokensMax, `${tokens} tokens of ${tokensMax}`);
    check(sequences >= 1 && sequences <= sequencesMax, `${sequences} sequences of ${sequencesMax}`);
    check(rows >= 0 && rows <= rowsMax, `${rows} rows of ${rowsMax}`);
    check(this.inputs.sequenceStarts[0] === 0, "the first sequence starts at row 0");
    check(this.inputs.sequenceStarts[sequences] === tokens, "the last start is the number of tokens");
    this.tokens = tokens;
    this.sequences = sequences;
    this.rows = rows;
    this.steps += 1;
    for (let token = 0; token < tokens; token++) this.#options.traps?.get(this.inputs.tokenIds[token]!)?.();
    const owners = this.#blockOwners(sequences);
    for (let sequence = 0; sequence < sequences; sequence++) this.#store(sequence, owners);
    this.#sampleRows(sequences, rows);
    const untilMs = performance.now() + (this.#options.stepMs ?? 0);
    while (performance.now() < untilMs);
  }

  close(): void {
    this.closed = true;
  }

  #tableEntry(sequence: number, position: number): number {
    const { blocksPerSequenceMax, blockSize, blockCount } = this.limits;
    const column = Math.floor(position / blockSize);
    check(column < blocksPerSequenceMax, `position ${position} is beyond the block table`);
    const block = this.inputs.blockTables[sequence * blocksPerSequenceMax + column]!;
    check(
      block >= 1 && block < blockCount,
      `sequence ${sequence} has block ${block} at position ${position}`,
    );
    return block;
  }

  #slot(sequence: number, position: number): number {
    const { blockSize } = this.limits;
    return this.#tableEntry(sequence, position) * blockSize + (position % blockSize);
  }

  /** How many sequences of the step have each block in their tables. */
  #blockOwners(sequences: number): Map<number, number> {
    const owners = new Map<number, number>();
    for (let sequence = 0; sequence < sequences; sequence++) {
      const length = this.inputs.contextLengths[sequence]!;
      const seen = new Set<number>();
      for (let position = 0; position < length; position += this.limits.blockSize) {
        const block = this.#tableEntry(sequence, position);
        check(!seen.has(block), `sequence ${sequence} has block ${block} twice`);
        seen.add(block);
        owners.set(block, (owners.get(block) ?? 0) + 1);
      }
    }
    return owners;
  }

  #store(sequence: number, owners: ReadonlyMap<number, number>): void {
    const { sequenceStarts, contextLengths, tokenIds, positions, slotMapping } = this.inputs;
    const from = sequenceStarts[sequence]!;
    const to = sequenceStarts[sequence + 1]!;
    const length = contextLengths[sequence]!;
    check(to > from, `sequence ${sequence} has no tokens`);
    check(length <= this.limits.contextLength, `context of ${length} tokens`);
    for (let row = from; row < to; row++) {
      const position = length - (to - row);
      check(positions[row] === position && position >= 0, `row ${row} has position ${positions[row]}`);
      check(tokenIds[row]! >= 0 && tokenIds[row]! < this.limits.vocabularySize, `token ${tokenIds[row]}`);
      const slot = this.#slot(sequence, position);
      check(slotMapping[row] === slot, `row ${row} is mapped to slot ${slotMapping[row]}, not ${slot}`);
      check(
        owners.get(this.#tableEntry(sequence, position)) === 1,
        `slot ${slot} of a shared block is written`,
      );
      this.#tokenAt[slot] = tokenIds[row]!;
      this.#positionAt[slot] = position;
    }
  }

  #sampleRows(sequences: number, rows: number): void {
    const { sequenceStarts, contextLengths, logitRows, adjustmentStarts } = this.inputs;
    check(adjustmentStarts[0] === 0, "adjustments start at 0");
    let sequence = 0;
    for (let row = 0; row < rows; row++) {
      const tokenRow = logitRows[row]!;
      check(row === 0 || tokenRow > logitRows[row - 1]!, `logit row ${tokenRow} is out of order`);
      while (sequence < sequences && tokenRow >= sequenceStarts[sequence + 1]!) sequence++;
      check(sequence < sequences, `logit row ${tokenRow} is no token row`);
      const end = sequenceStarts[sequence + 1]!;
      this.#sample(row, this.#history(sequence, contextLengths[sequence]! - (end - tokenRow)));
    }
  }

  /** The hash of what the slots hold for positions 0 to `last`. */
  #history(sequence: number, last: number): number {
    let hash = EMPTY_HISTORY;
    for (let position = 0; position <= last; position++) {
      const slot = this.#slot(sequence, position);
      check(this.#positionAt[slot] === position, `slot ${slot} does not hold position ${position}`);
      hash = mix(hash, this.#tokenAt[slot]!);
    }
    return hash;
  }

  #sample(row: number, history: number): void {
    const { vocabularySize, topLogprobsMax } = this.limits;
    const parameter = (name: keyof typeof SAMPLING_PARAMETER): number =>
      this.inputs.samplingParameters[row * SAMPLING_PARAMETER_WORDS + SAMPLING_PARAMETER[name]]!;
    const forced = parameter("forced_token");
    const count = parameter("logprob_count");
    check(forced >= -1 && forced < vocabularySize, `forced token ${forced}`);
    check(count >= -1 && count <= topLogprobsMax, `${count} alternatives`);
    const adjustments = this.#adjustments(row);
    let hash = adjustments === 0 ? history : mix(history, adjustments);
    if (parameter("temperature") !== 0) {
      for (const name of [
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "seed_low",
        "seed_high",
        "position",
      ] as const) {
        hash = mix(hash, parameter(name));
      }
    }
    this.outputs.tokens[row] =
      forced >= 0 ? forced : spread(hash) % (this.#options.drawnMax ?? vocabularySize);
    this.outputs.logprobs[row] = -(spread(history) % 1000) / 100;
    this.outputs.hidden.set(hiddenOf(history), row * FAKE_WIDTH);
    for (let index = 0; index < topLogprobsMax; index++) {
      const at = row * topLogprobsMax + index;
      this.outputs.topTokens[at] = index < count ? (spread(history) + index) % vocabularySize : -1;
      this.outputs.topLogprobs[at] = index < count ? -index : 0;
    }
  }

  /** A hash of the row's adjustments; 0 for none. */
  #adjustments(row: number): number {
    const { adjustmentStarts, adjustmentTokens, adjustmentMultipliers, adjustmentAddends } = this.inputs;
    const from = adjustmentStarts[row]!;
    const to = adjustmentStarts[row + 1]!;
    check(to >= from && to <= this.limits.adjustmentsMax, `adjustments ${from} to ${to}`);
    let hash = 0;
    for (let index = from; index < to; index++) {
      const token = adjustmentTokens[index]!;
      check(token >= 0 && token < this.limits.vocabularySize, `adjusted token ${token}`);
      hash = mix(hash, token);
      hash = mix(hash, Math.round(adjustmentMultipliers[index]! * 1024));
      hash = mix(hash, Math.round(adjustmentAddends[index]! * 1024));
    }
    return hash;
  }
}

function check(holds: boolean, what: string): void {
  if (!holds) throw new Error(`broken step inputs: ${what}`);
}
