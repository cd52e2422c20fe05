/** What a model may count on of a CUDA device: its memory, or a share of the system's where it has none of its own. */

import type { DeviceMemory } from "../backend/device-info.ts";
import { type HostMemory, hostMemory } from "./host-memory.ts";

const INTEGRATED_MEMORY_FRACTION = 0.75;

/** `free` and `total` are the device's own; `system` is the memory of the machine. */
export function cudaMemory(
  { free, total }: DeviceMemory,
  integrated: boolean,
  fraction = INTEGRATED_MEMORY_FRACTION,
  system: HostMemory = hostMemory(),
): HostMemory {
  if (!integrated) return { totalBytes: total, availableBytes: free };
  return {
    totalBytes: Math.floor(system.totalBytes * fraction),
    availableBytes: Math.floor(system.availableBytes * fraction),
  };
}
