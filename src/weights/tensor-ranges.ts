/** Checks that hold for the tensors of any file format: sizes that do not overflow, ranges that do not overlap. */

import { DTYPES, type DType } from "../backend/dtype.ts";
import { malformed, quoted } from "./malformed.ts";
import type { TensorEntry } from "./types.ts";

/**
 * Bytes of a tensor of this type and row-major shape. Returns the reason as text when the dimensions overflow or
 * a row is not a whole number of blocks.
 */
export function tensorBytes(dtype: DType, shape: readonly number[]): number | string {
  const { blockElements, blockBytes } = DTYPES[dtype];
  const rowElements = shape.at(-1) ?? 1;
  if (rowElements % blockElements !== 0) {
    return `has rows of ${rowElements} elements, not a whole number of ${dtype} blocks of ${blockElements}`;
  }
  let bytes = (rowElements / blockElements) * blockBytes;
  for (const dimension of shape.slice(0, -1)) bytes *= dimension;
  return Number.isSafeInteger(bytes) ? bytes : `has shape [${shape.join(", ")}], whose size overflows`;
}

/** Throws when two tensors of one file share a byte. */
export function expectNoOverlap(path: string, tensors: Iterable<TensorEntry>): void {
  const sorted = [...tensors].filter(({ bytes }) => bytes > 0).sort((a, b) => a.offset - b.offset);
  for (let index = 1; index < sorted.length; index++) {
    const before = sorted[index - 1]!;
    const tensor = sorted[index]!;
    if (tensor.offset < before.offset + before.bytes) {
      const span = `bytes ${before.offset} to ${before.offset + before.bytes}`;
      const reason = `tensor ${quoted(tensor.name)} overlaps tensor ${quoted(before.name)}, which holds ${span}`;
      throw malformed(path, tensor.offset, reason);
    }
  }
}
