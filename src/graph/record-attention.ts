/** Records the ops of attention: rotation, the cache of keys and values, and attention over its pages. */

import type { ProgramBuilder } from "./builder.ts";
import { check, expectInner, expectSameRows, expectVector } from "./operand-checks.ts";
import type { OpName } from "./ops.ts";
import { describeTensor, rankOf, sameLeading, type Tensor } from "./tensor.ts";

export interface RopeTableOptions {
  readonly name: string;
  /** i32 `[tokens]` */
  readonly positions: Tensor;
  /** f32 `[pairs]` */
  readonly inverseFrequencies: Tensor;
  readonly scale: number;
}

/** Cosines and sines of the positions: f32 `[tokens, 2, pairs]`. */
export function ropeTable(program: ProgramBuilder, options: RopeTableOptions): Tensor {
  const { name, positions, inverseFrequencies, scale } = options;
  expectInner("rope_table", positions, "i32", []);
  const pairs = inverseFrequencies.leading.plus;
  expectVector("rope_table", inverseFrequencies, pairs);
  const out = program.activation(name, [positions.leading, 2, pairs]);
  program.record("rope_table", { out, positions, inverse_frequencies: inverseFrequencies }, { scale });
  return out;
}

/** Rotates each head of x (f32 `[tokens, heads, headDim]`) in place. table: f32 `[tokens, 2, pairs]`. */
export function rope(
  program: ProgramBuilder,
  { x, table, interleaved }: { readonly x: Tensor; readonly table: Tensor; readonly interleaved: boolean },
): void {
  check(rankOf(x) === 3 && x.dtype === "f32", "rope", () => `${describeTensor(x)} must be f32 of rank 3`);
  check(rankOf(table) === 3, "rope", () => `${describeTensor(table)} must have rank 3`);
  const pairs = table.inner[1]!;
  expectInner("rope", table, "f32", [2, pairs]);
  check(2 * pairs <= x.inner[1]!, "rope", () => `${pairs} pairs do not fit ${describeTensor(x)}`);
  expectSameRows("rope", table, x);
  program.record("rope", { x, table }, { interleaved: interleaved ? 1 : 0 });
}

/** The keys or the values of one layer: `[blocks, kvHeads, blockSize, headDim]`, f32, f16, bf16 or f8e4m3. */
export interface LayerCache {
  readonly keys: Tensor;
  readonly values: Tensor;
}

function expectCache(op: OpName, { keys, values }: LayerCache, kvHeads: number, headDim: number): void {
  for (const cache of [keys, values]) {
    check(
      rankOf(cache) === 4 && cache.inner[0] === kvHeads && cache.inner[2] === headDim,
      op,
      () => `${describeTensor(cache)} must be [blocks, ${kvHeads}, block size, ${headDim}]`,
    );
    check(
      ["f32", "f16", "bf16", "f8e4m3"].includes(cache.dtype),
      op,
      () => `a cache cannot be ${cache.dtype}`,
    );
  }
}

export interface KvWriteOptions {
  /** f32 `[tokens, kvHeads, headDim]` */
  readonly k: Tensor;
  readonly v: Tensor;
  /** i32 `[tokens]` */
  readonly slotMapping: Tensor;
  readonly cache: LayerCache;
}

/** Stores the step's keys and values in the cache. */
export function kvWrite(program: ProgramBuilder, { k, v, slotMapping, cache }: KvWriteOptions): void {
  check(rankOf(k) === 3, "kv_write", () => `${describeTensor(k)} must have rank 3`);
  expectInner("kv_write", v, "f32", k.inner);
  expectInner("kv_write", slotMapping, "i32", []);
  expectSameRows("kv_write", v, k);
  expectSameRows("kv_write", slotMapping, k);
  expectCache("kv_write", cache, k.inner[0]!, k.inner[1]!);
  program.record("kv_write", { k, v, slot_mapping: slotMapping, k_cache: cache.keys, v_cache: cache.values });
}

export interface PagedAttentionOptions {
  readonly name: string;
  /** f32 `[tokens, heads, headDim]` */
  readonly q: Tensor;
  readonly cache: LayerCache;
  /** i32 `[seqs, blocksPerSequence]` */
  readonly blockTables: Tensor;
  /** i32 `[seqs + 1]` */
  readonly sequenceStarts: Tensor;
  /** i32 `[seqs]` */
  readonly contextLengths: Tensor;
  readonly scale: number;
  /** Keys that a row sees, its own included; 0 for all. */
  readonly slidingWindow: number;
  /** 0 for none. */
  readonly softCap: number;
  /** f32 `[heads]` */
  readonly sinks?: Tensor | undefined;
}

/** Causal attention over the paged cache: f32 `[tokens, heads * headDim]`. */
export function pagedAttention(program: ProgramBuilder, options: PagedAttentionOptions): Tensor {
  const { name, q, cache, blockTables, sequenceStarts, contextLengths, sinks } = options;
  check(rankOf(q) === 3, "paged_attention", () => `${describeTensor(q)} must have rank 3`);
  const [heads, headDim] = q.inner as [number, number];
  const kvHeads = cache.keys.inner[0] ?? 0;
  expectCache("paged_attention", cache, kvHeads, headDim);
  check(
    kvHeads > 0 && heads % kvHeads === 0,
    "paged_attention",
    () => `${heads} heads do not share ${kvHeads} key heads`,
  );
  check(
    rankOf(blockTables) === 2,
    "paged_attention",
    () => `${describeTensor(blockTables)} must have rank 2`,
  );
  expectInner("paged_attention", contextLengths, "i32", []);
  expectInner("paged_attention", sequenceStarts, "i32", []);
  expectSameRows("paged_attention", blockTables, contextLengths);
  const { symbol, plus } = contextLengths.leading;
  check(
    sameLeading(sequenceStarts.leading, { symbol, plus: plus + 1 }),
    "paged_attention",
    () => `${describeTensor(sequenceStarts)} must have one entry more than ${describeTensor(contextLengths)}`,
  );
  if (sinks !== undefined) expectVector("paged_attention", sinks, heads);
  const out = program.activation(name, [q.leading, heads * headDim]);
  program.record(
    "paged_attention",
    {
      out,
      q,
      k_cache: cache.keys,
      v_cache: cache.values,
      block_tables: blockTables,
      sequence_starts: sequenceStarts,
      context_lengths: contextLengths,
      sinks,
    },
    { scale: options.scale, sliding_window: options.slidingWindow, soft_cap: options.softCap },
  );
  return out;
}
