/** Where the keys and values of each layer lie in the pool, in both layouts. */

import { expect, test } from "bun:test";
import { ProgramBuilder } from "../../src/graph/builder.ts";
import type { Tensor } from "../../src/graph/tensor.ts";
import type { ModelConfig } from "../../src/models/config.ts";
import { type CacheLayout, declareCaches } from "../../src/models/declare-caches.ts";
import type { StepLimits } from "../../src/models/step.ts";

const BLOCKS = 5;
const BLOCK_SIZE = 8;
const LAYERS = 3;
const HEADS = 2;
const HEAD_DIM = 16;
const BYTES_EACH = HEADS * BLOCK_SIZE * HEAD_DIM * 2;

function declare(cacheLayout: CacheLayout) {
  const program = new ProgramBuilder();
  const config = { keyValueHeads: HEADS, headDim: HEAD_DIM, layers: Array.from({ length: LAYERS }) };
  const declared = declareCaches(program, {
    config: config as unknown as ModelConfig,
    limits: { blockCount: BLOCKS, blockSize: BLOCK_SIZE } as StepLimits,
    kvCacheType: "f16",
    cacheLayout,
  });
  return { ...declared, buffer: program.buffers[declared.slot]! };
}

/** First byte of a block of a cache. */
function placeOf(cache: Tensor, block: number): number {
  if (cache.storage.kind !== "buffer") throw new Error("a cache lies in a buffer");
  return cache.storage.byteOffset + block * cache.leadingStride * 2;
}

test.each(["by block", "by layer"] as const)("%s: every byte belongs to one block of one cache", (layout) => {
  const { caches, bytes, buffer } = declare(layout);
  expect(caches.length).toBe(LAYERS);
  const places = caches.flatMap(({ keys, values }) =>
    [keys, values].flatMap((cache) => Array.from({ length: BLOCKS }, (_, block) => placeOf(cache, block))),
  );
  const expected = Array.from({ length: 2 * LAYERS * BLOCKS }, (_, index) => index * BYTES_EACH);
  expect(places.toSorted((a, b) => a - b)).toEqual(expected);
  expect(bytes).toBe(expected.length * BYTES_EACH);
  expect(buffer.bytes).toBe(bytes);
});

test("by block, what all layers keep of a block is one piece, in a pool that grows by pieces", () => {
  const { caches, kind } = declare("by block");
  for (let block = 0; block < BLOCKS; block++) {
    const begin = block * 2 * LAYERS * BYTES_EACH;
    const places = caches.flatMap(({ keys, values }) => [placeOf(keys, block), placeOf(values, block)]);
    expect(places).toEqual(places.map((_, index) => begin + index * BYTES_EACH));
  }
  expect([kind, declare("by layer").kind]).toEqual(["bulk", "device"]);
});
