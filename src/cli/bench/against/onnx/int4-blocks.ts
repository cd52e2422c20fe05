/** Rounds numbers to 4 bits in blocks with a scale each, as GGML's Q4_0 does: what was Q4_0 comes out as it was. */

import { BLOCK_ELEMENTS } from "./decoder-graph.ts";

/** Of the four bits' values, the one that stands for 0. */
const ZERO_POINT = 8;

export interface Int4Blocks {
  /** Two elements each, the first in the low bits. */
  readonly data: Uint8Array;
  /** One a block. */
  readonly scales: Float32Array;
}

/** Whole blocks only. */
export function quantizeInt4(values: Float32Array): Int4Blocks {
  const blocks = values.length / BLOCK_ELEMENTS;
  if (!Number.isInteger(blocks)) {
    throw new RangeError(`${values.length} elements are not a whole number of blocks of ${BLOCK_ELEMENTS}`);
  }
  const data = new Uint8Array(values.length / 2);
  const scales = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const first = block * BLOCK_ELEMENTS;
    let extreme = 0;
    for (let index = first; index < first + BLOCK_ELEMENTS; index++) {
      if (Math.abs(values[index]!) > Math.abs(extreme)) extreme = values[index]!;
    }
    // The largest becomes -8, which has no counterpart above.
    const scale = extreme === 0 ? 0 : extreme / -ZERO_POINT;
    const inverse = scale === 0 ? 0 : 1 / scale;
    scales[block] = scale;
    for (let index = first; index < first + BLOCK_ELEMENTS; index += 2) {
      data[index >> 1] = nibble(values[index]! * inverse) | (nibble(values[index + 1]! * inverse) << 4);
    }
  }
  return { data, scales };
}

function nibble(value: number): number {
  const rounded = (value + ZERO_POINT + 0.5) | 0;
  return Math.min(rounded, 15);
}
