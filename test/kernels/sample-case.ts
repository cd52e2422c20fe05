/** Rows to be sampled, as a program of the sample op. */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../src/graph/ops.ts";
import { sample } from "../../src/graph/record.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import { Recording } from "./harness.ts";
import type { Random } from "./random.ts";
import type { SampleRow } from "./reference/sample.ts";

export const TOP_COUNT_MAX = 6;
export const ADJUSTMENTS_MAX = 2048;
export const ROWS_MAX = 16;

export interface Adjustment {
  readonly token: number;
  readonly multiplier: number;
  readonly addend: number;
}

export interface Row extends SampleRow {
  readonly logits: Float32Array;
  readonly logprobCount: number;
  readonly forcedToken: number;
  readonly adjustments: readonly Adjustment[];
}

export const PLAIN = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  seedLow: 1,
  seedHigh: 2,
  position: 3,
  logprobCount: -1,
  forcedToken: -1,
  adjustments: [],
} as const;

export interface Case {
  readonly recording: Recording;
  readonly logits: Tensor;
  readonly outputs: readonly [Tensor, Tensor, Tensor, Tensor];
}

/** A program of one sample op over these rows; `starts` in place of the list's own. */
export function build(rows: readonly Row[], changes: { readonly starts?: number[] } = {}): Case {
  const vocabulary = rows[0]!.logits.length;
  const recording = new Recording();
  const dimension = recording.program.dimension("rows", ROWS_MAX);
  const words = new Int32Array(rows.length * SAMPLING_PARAMETER_WORDS);
  const floats = new Float32Array(words.buffer);
  const starts = [0];
  const all = rows.flatMap(({ adjustments }) => adjustments);
  rows.forEach((row, index) => {
    const at = index * SAMPLING_PARAMETER_WORDS;
    floats[at + SAMPLING_PARAMETER.temperature] = row.temperature;
    words[at + SAMPLING_PARAMETER.top_k] = row.topK;
    floats[at + SAMPLING_PARAMETER.top_p] = row.topP;
    floats[at + SAMPLING_PARAMETER.min_p] = row.minP;
    words[at + SAMPLING_PARAMETER.seed_low] = row.seedLow;
    words[at + SAMPLING_PARAMETER.seed_high] = row.seedHigh;
    words[at + SAMPLING_PARAMETER.position] = row.position;
    words[at + SAMPLING_PARAMETER.logprob_count] = row.logprobCount;
    words[at + SAMPLING_PARAMETER.forced_token] = row.forcedToken;
    starts.push(starts.at(-1)! + row.adjustments.length);
  });
  const flat = new Float32Array(rows.length * vocabulary);
  rows.forEach((row, index) => {
    flat.set(row.logits, index * vocabulary);
  });
  const logits = recording.state("logits", "f32", [dimension, vocabulary], flat);
  const outputs = [
    recording.state("tokens", "i32", [dimension]),
    recording.state("logprobs", "f32", [dimension]),
    recording.state("topTokens", "i32", [dimension, TOP_COUNT_MAX]),
    recording.state("topLogprobs", "f32", [dimension, TOP_COUNT_MAX]),
  ] as const;
  sample(recording.program, {
    logits,
    parameters: recording.input("parameters", "i32", [dimension, SAMPLING_PARAMETER_WORDS], words),
    adjustmentStarts: recording.i32("starts", [{ symbol: dimension, plus: 1 }], changes.starts ?? starts),
    adjustmentTokens: recording.i32(
      "adjusted",
      [ADJUSTMENTS_MAX],
      all.map(({ token }) => token),
    ),
    adjustmentMultipliers: recording.f32(
      "multipliers",
      [ADJUSTMENTS_MAX],
      Float32Array.from(all, ({ multiplier }) => multiplier),
    ),
    adjustmentAddends: recording.f32(
      "addends",
      [ADJUSTMENTS_MAX],
      Float32Array.from(all, ({ addend }) => addend),
    ),
    tokens: outputs[0],
    logprobs: outputs[1],
    topTokens: outputs[2],
    topLogprobs: outputs[3],
  });
  return { recording, logits, outputs };
}

/** The logits after a row's adjustments, rounded to f32 at each step as the op table says it in f32. */
export function adjusted({ logits, adjustments }: Row): Float32Array {
  const out = Float32Array.from(logits);
  for (const { token, multiplier, addend } of adjustments) {
    const l = out[token]!;
    const m = Math.fround(multiplier);
    out[token] = Math.fround(l > 0 ? l / m : l * m) + Math.fround(addend);
  }
  return out;
}

/** Near a normal distribution: much of the mass lies several units below the largest logit. */
export function bell(random: Random, count: number): Float32Array {
  const sum = () => random.uniform() + random.uniform() + random.uniform() + random.uniform();
  return Float32Array.from({ length: count }, () => (sum() - 2) * 6);
}
