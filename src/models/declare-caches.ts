/** How the keys and values of all layers lie in the one buffer of the KV pool. */

import type { BufferKind } from "../backend/device.ts";
import { bytesOfElements } from "../backend/dtype.ts";
import type { ProgramBuilder } from "../graph/builder.ts";
import type { LayerCache } from "../graph/record-attention.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelConfig } from "./config.ts";
import type { StepLimits } from "./step.ts";
import type { KvCacheType } from "./step-limits.ts";

/**
 * `by block`: what all layers keep of a block is one piece of memory, so that a pool in huge pages grows by no more
 * than the blocks in use. `by layer`: all blocks of a layer are dense, and every layer begins at a page of its own.
 */
export type CacheLayout = "by block" | "by layer";

export interface CacheOptions {
  readonly config: ModelConfig;
  readonly limits: StepLimits;
  readonly kvCacheType: KvCacheType;
  /** `by layer` when not given, which every device takes. */
  readonly cacheLayout?: CacheLayout;
}

export interface DeclaredCaches {
  readonly slot: number;
  readonly bytes: number;
  readonly kind: BufferKind;
  /** Of each layer, `[blocks, kvHeads, blockSize, headDim]`. */
  readonly caches: readonly LayerCache[];
}

export function declareCaches(program: ProgramBuilder, options: CacheOptions): DeclaredCaches {
  const { config, limits, kvCacheType, cacheLayout = "by layer" } = options;
  const { keyValueHeads, headDim } = config;
  const shape = [limits.blockCount, keyValueHeads, limits.blockSize, headDim] as const;
  // A part is the keys or the values of one layer: of one block, or of all.
  const parts = 2 * config.layers.length;
  const elements = keyValueHeads * limits.blockSize * headDim;
  const isByBlock = cacheLayout === "by block";
  const leadingStride = isByBlock ? parts * elements : elements;
  const partBytes = bytesOfElements(kvCacheType, isByBlock ? elements : elements * limits.blockCount);
  const bytes = limits.blockCount * parts * bytesOfElements(kvCacheType, elements);
  const slot = program.buffer("kv_cache", bytes);
  const cache = (name: string, part: number): Tensor =>
    program.bind(name, kvCacheType, shape, { slot, byteOffset: part * partBytes, leadingStride });
  const caches = config.layers.map((_, layer) => ({
    keys: cache(`layers.${layer}.keys`, 2 * layer),
    values: cache(`layers.${layer}.values`, 2 * layer + 1),
  }));
  return { slot, bytes, kind: isByBlock ? "bulk" : "device", caches };
}
