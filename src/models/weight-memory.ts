/** How much memory the weights of a checkpoint take, and whether there is room for a copy of them in the faster layout. */

import type { Checkpoint } from "../weights/types.ts";
import { availableMemoryBytes } from "./host-memory.ts";

export type Repack = "auto" | "on" | "off";

/** Share of the free memory that an automatic copy of the weights may take. */
const REPACK_SHARE_OF_FREE_MEMORY = 0.5;

/** Bytes of all tensors of a checkpoint. */
export function weightBytesOf({ tensors }: Checkpoint): number {
  let total = 0;
  for (const { bytes } of tensors.values()) total += bytes;
  return total;
}

/** Whether a model with so many bytes of weights gets a copy of them in the faster layout. */
export function wantsRepack(
  repack: Repack,
  weightBytes: number,
  availableBytes: number = availableMemoryBytes(),
): boolean {
  if (repack !== "auto") return repack === "on";
  return weightBytes <= availableBytes * REPACK_SHARE_OF_FREE_MEMORY;
}
