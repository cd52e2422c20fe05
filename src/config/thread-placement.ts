/** How many threads compute and which processors they are pinned to, from the settings and this machine. */

import type { Settings } from "./settings.ts";
import { defaultThreads, fastProcessors, type ProcessorFacts } from "./threads.ts";

export interface ThreadPlacement {
  readonly threads: number;
  /** In order; undefined: threads are not pinned. */
  readonly processors: readonly number[] | undefined;
}

/** A mask is stronger than the choice of fast cores, and a number of threads stronger than both. */
export function threadPlacement(
  { threads, processorMask, processorAffinity }: Settings,
  facts?: ProcessorFacts,
  platform: NodeJS.Platform = process.platform,
): ThreadPlacement {
  const canPin = platform === "linux";
  if (canPin && processorMask !== undefined) {
    return { threads: threads ?? processorMask.length, processors: processorMask };
  }
  const fast = canPin && processorAffinity ? fastProcessors(facts) : undefined;
  const most = defaultThreads(facts);
  return { threads: threads ?? Math.min(most, fast?.length ?? most), processors: fast };
}
