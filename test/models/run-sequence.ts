/** Drives a loaded model in tests: a few sequences, any chunks, logits of every row. */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../src/graph/ops.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";

/** A stretch of one sequence that a step computes. */
export interface Chunk {
  /** Which sequence; it owns its own blocks, in an order that is not the natural one. */
  readonly sequence: number;
  readonly tokens: readonly number[];
  /** Tokens of the sequence before this chunk. */
  readonly start: number;
}

/** The block of the pool that holds the `index`-th block of a sequence; scattered, so that order cannot matter. */
function blockOf(model: LoadedModel, sequence: number, index: number): number {
  const { blocksPerSequenceMax } = model.limits;
  const block = 1 + sequence * blocksPerSequenceMax + (blocksPerSequenceMax - 1 - index);
  if (block >= model.limits.blockCount)
    throw new Error(`block ${block} of a pool of ${model.limits.blockCount}`);
  return block;
}

function setRowParameters(model: LoadedModel, row: number): void {
  const start = row * SAMPLING_PARAMETER_WORDS;
  const { samplingParameters, samplingParametersF32 } = model.inputs;
  samplingParameters.fill(0, start, start + SAMPLING_PARAMETER_WORDS);
  samplingParametersF32[start + SAMPLING_PARAMETER.top_p] = 1;
  samplingParameters[start + SAMPLING_PARAMETER.logprob_count] = -1;
  samplingParameters[start + SAMPLING_PARAMETER.forced_token] = -1;
  model.inputs.adjustmentStarts[row] = 0;
  model.inputs.adjustmentStarts[row + 1] = 0;
}

/** Which rows of each chunk have logits. */
export type LogitRows = "all" | "last" | "none";

/** Runs one step with these chunks. Answers the logits of each chunk's rows, as a copy. */
export function runStep(
  model: LoadedModel,
  chunks: readonly Chunk[],
  wanted: LogitRows = "all",
): Float32Array[][] {
  const { inputs, limits } = model;
  const { blockSize, blocksPerSequenceMax, vocabularySize } = limits;
  let tokens = 0;
  let rows = 0;
  chunks.forEach((chunk, index) => {
    inputs.sequenceStarts[index] = tokens;
    const end = chunk.start + chunk.tokens.length;
    inputs.contextLengths[index] = end;
    for (let block = 0; block < blocksPerSequenceMax; block++) {
      inputs.blockTables[index * blocksPerSequenceMax + block] =
        block * blockSize < end ? blockOf(model, chunk.sequence, block) : 0;
    }
    chunk.tokens.forEach((token, offset) => {
      const position = chunk.start + offset;
      inputs.tokenIds[tokens] = token;
      inputs.positions[tokens] = position;
      inputs.slotMapping[tokens] =
        blockOf(model, chunk.sequence, Math.floor(position / blockSize)) * blockSize + (position % blockSize);
      if (wanted === "all" || (wanted === "last" && offset === chunk.tokens.length - 1)) {
        setRowParameters(model, rows);
        inputs.logitRows[rows++] = tokens;
      }
      tokens++;
    });
  });
  inputs.sequenceStarts[chunks.length] = tokens;
  model.run(tokens, chunks.length, rows);
  const logits = model.logits(rows);
  let row = 0;
  return chunks.map((chunk) =>
    Array.from({ length: { all: chunk.tokens.length, last: 1, none: 0 }[wanted] }, () => {
      const start = row++ * vocabularySize;
      return logits.slice(start, start + vocabularySize);
    }),
  );
}

/** Index of the largest value. */
export function argmax(values: ArrayLike<number>): number {
  let best = 0;
  for (let index = 1; index < values.length; index++) if (values[index]! > values[best]!) best = index;
  return best;
}
