/**
 * The logit adjustments of one sequence - DRY, frequency, presence and repetition penalty and logit bias - kept up to
 * date token by token, in the form the sample op takes: (token, multiplier, addend) applied in list order as
 * `l = (l > 0 ? l / multiplier : l * multiplier) + addend`.
 *
 * Order of the rules: DRY, then `l -= count * frequency + presence` for generated tokens, then repetition for tokens of
 * the prompt and generated ones (a positive logit is divided, a negative one multiplied), then the bias. A token
 * with all three needs two entries, (1, -penalty) and then (repetition, bias); without a repetition penalty, or
 * without the other two, one entry does it all. The DRY entries, (1, -penalty), come first and anew in each step.
 */

import { DryPenalty } from "./dry.ts";

import type { SamplingParameters } from "./messages.ts";

/** Entries of distinct tokens, in order of first appearance. */
class AdjustmentTable {
  tokens = new Int32Array(16);
  multipliers = new Float32Array(16);
  addends = new Float32Array(16);
  count = 0;
  readonly #indexOf = new Map<number, number>();

  /** The index of the token's entry; a new one starts as "no change". Making room for it replaces the arrays. */
  entry(token: number): number {
    const known = this.#indexOf.get(token);
    if (known !== undefined) return known;
    if (this.count === this.tokens.length) this.#grow();
    const index = this.count++;
    this.#indexOf.set(token, index);
    this.tokens[index] = token;
    this.multipliers[index] = 1;
    this.addends[index] = 0;
    return index;
  }

  setMultiplier(token: number, multiplier: number): void {
    const index = this.entry(token);
    this.multipliers[index] = multiplier;
  }

  setAddend(token: number, addend: number): void {
    const index = this.entry(token);
    this.addends[index] = addend;
  }

  #grow(): void {
    const { tokens, multipliers, addends } = this;
    this.tokens = new Int32Array(tokens.length * 2);
    this.multipliers = new Float32Array(tokens.length * 2);
    this.addends = new Float32Array(tokens.length * 2);
    this.tokens.set(tokens);
    this.multipliers.set(multipliers);
    this.addends.set(addends);
  }
}

/** Where the entries of a step go; `StepInputs` is one. */
export interface AdjustmentTarget {
  readonly adjustmentTokens: Int32Array;
  readonly adjustmentMultipliers: Float32Array;
  readonly adjustmentAddends: Float32Array;
}

export class Adjustments {
  readonly #sampling: SamplingParameters;
  readonly #repetition: number;
  readonly #penalised: boolean;
  readonly #dry: DryPenalty | null;
  /** Frequency and presence; the same table as the last one when there is no repetition penalty. */
  readonly #penalties: AdjustmentTable;
  /** Repetition, then bias. */
  readonly #last: AdjustmentTable;
  readonly #counts = new Map<number, number>();
  readonly #bias = new Map<number, number>();

  constructor(sampling: SamplingParameters, promptTokens: Int32Array) {
    this.#sampling = sampling;
    this.#repetition = sampling.repetitionPenalty;
    this.#penalised = sampling.frequencyPenalty !== 0 || sampling.presencePenalty !== 0;
    this.#dry = sampling.dry === undefined ? null : new DryPenalty(sampling.dry, promptTokens);
    this.#last = new AdjustmentTable();
    this.#penalties = this.#repetition === 1 ? this.#last : new AdjustmentTable();
    for (const { token, bias } of sampling.logitBias) {
      const total = (this.#bias.get(token) ?? 0) + bias;
      this.#bias.set(token, total);
      this.#last.setAddend(token, total);
    }
    if (this.#repetition !== 1) for (const token of promptTokens) this.#repeat(token);
  }

  /** Entries a row of this sequence takes now. */
  get count(): number {
    const lasting = this.#penalties === this.#last ? 0 : this.#penalties.count;
    return (this.#dry?.count ?? 0) + lasting + this.#last.count;
  }

  /** A token was generated. */
  add(token: number): void {
    this.#dry?.add(token);
    if (this.#repetition !== 1) this.#repeat(token);
    if (!this.#penalised) return;
    const { frequencyPenalty, presencePenalty } = this.#sampling;
    const count = (this.#counts.get(token) ?? 0) + 1;
    this.#counts.set(token, count);
    const table = this.#penalties;
    const bias = table === this.#last ? (this.#bias.get(token) ?? 0) : 0;
    table.setAddend(token, bias - (count * frequencyPenalty + presencePenalty));
  }

  /** Writes the entries from index `at` on; returns the index after them. */
  write(target: AdjustmentTarget, at: number): number {
    let next = at;
    this.#dry?.visit((token, penalty) => {
      target.adjustmentTokens[next] = token;
      target.adjustmentMultipliers[next] = 1;
      target.adjustmentAddends[next] = -penalty;
      next += 1;
    });
    if (this.#penalties !== this.#last) next = copy(this.#penalties, target, next);
    return copy(this.#last, target, next);
  }

  #repeat(token: number): void {
    this.#last.setMultiplier(token, this.#repetition);
  }
}

/** Most entries a row of a sequence of at most `lengthMax` tokens can take. */
export function adjustmentsWorstCase(
  sampling: SamplingParameters,
  promptLength: number,
  lengthMax: number,
  vocabularySize: number,
): number {
  const generated = Math.min(lengthMax - promptLength, vocabularySize);
  const penalised = sampling.frequencyPenalty !== 0 || sampling.presencePenalty !== 0;
  const bias = sampling.logitBias.length;
  const repeated = sampling.dry === undefined ? 0 : Math.min(lengthMax, vocabularySize);
  if (sampling.repetitionPenalty === 1) {
    return repeated + Math.min((penalised ? generated : 0) + bias, vocabularySize);
  }
  return repeated + (penalised ? generated : 0) + Math.min(lengthMax + bias, vocabularySize);
}

function copy(table: AdjustmentTable, target: AdjustmentTarget, at: number): number {
  const { tokens, multipliers, addends, count } = table;
  for (let index = 0; index < count; index++) {
    target.adjustmentTokens[at + index] = tokens[index]!;
    target.adjustmentMultipliers[at + index] = multipliers[index]!;
    target.adjustmentAddends[at + index] = addends[index]!;
  }
  return at + count;
}
