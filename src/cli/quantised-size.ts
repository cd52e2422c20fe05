/** How large a checkpoint would be in another type, from the shapes of its tensors. */

import { bytesOfElements, DTYPES, type FileDType } from "../backend/dtype.ts";
import type { Checkpoint, TensorEntry } from "../weights/types.ts";

/** What llama.cpp takes instead for rows that are no whole number of blocks of 256. */
const NARROW: Partial<Record<FileDType, FileDType>> = {
  q2_k: "q4_0",
  q3_k: "q4_0",
  q4_k: "q5_0",
  q5_k: "q5_1",
  q6_k: "q8_0",
};

/** Bytes of all tensors when every matrix is stored as `type`; vectors stay as they are. */
export function estimateWeightBytes({ tensors }: Checkpoint, type: FileDType): number {
  let bytes = 0;
  for (const tensor of tensors.values()) bytes += bytesAs(tensor, type);
  return bytes;
}

function bytesAs({ shape, bytes }: TensorEntry, type: FileDType): number {
  const width = shape.at(-1) ?? 1;
  if (shape.length < 2) return bytes;
  const fits = (candidate: FileDType): boolean => width % DTYPES[candidate].blockElements === 0;
  const narrow = NARROW[type] ?? type;
  const chosen = fits(type) ? type : fits(narrow) ? narrow : "f16";
  return bytesOfElements(
    chosen,
    shape.reduce((product, size) => product * size, 1),
  );
}

/** The type that holds most of a checkpoint's bytes. */
export function mainType({ tensors }: Checkpoint): FileDType {
  const byType = new Map<FileDType, number>();
  for (const { dtype, bytes } of tensors.values()) byType.set(dtype, (byType.get(dtype) ?? 0) + bytes);
  const [first] = [...byType].sort(([, a], [, b]) => b - a);
  if (first === undefined) throw new Error("a checkpoint without tensors");
  return first[0];
}
