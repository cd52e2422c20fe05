/** The cases of attention: one row each of one and of eight sequences, and a long piece of a prompt, at three depths. */

import { bytesOfElements } from "../../../backend/dtype.ts";
import { multiples, numbers, wave } from "./fills.ts";
import { F32_BYTES, type KernelCase, type ModelShape } from "./kernel-case.ts";

const CONTEXTS = [512, 2048, 8192] as const;
export const CACHE_TYPES = ["f16", "bf16", "f32", "f8e4m3"] as const;
/** Sequences of a step and the tokens that each brings. */
const STEPS = [
  { sequences: 1, tokensEach: 1 },
  { sequences: 8, tokensEach: 1 },
  { sequences: 1, tokensEach: 512 },
] as const;
const BLOCK_SIZE = 32;

type Step = (typeof STEPS)[number];

export function attentionCases(model: ModelShape): KernelCase[] {
  return CACHE_TYPES.flatMap((dtype) =>
    CONTEXTS.flatMap((context) => STEPS.map((step) => attentionCase(model, dtype, context, step))),
  );
}

function attentionCase(
  { heads, kvHeads, headDim }: ModelShape,
  dtype: (typeof CACHE_TYPES)[number],
  context: number,
  { sequences, tokensEach }: Step,
): KernelCase {
  const tokens = sequences * tokensEach;
  const blocksEach = context / BLOCK_SIZE;
  const blocks = 1 + sequences * blocksEach;
  const cacheShape = [blocks, kvHeads, BLOCK_SIZE, headDim] as const;
  const cacheBytes = blocks * BLOCK_SIZE * kvHeads * bytesOfElements(dtype, headDim);
  const readBytes = 2 * sequences * context * kvHeads * bytesOfElements(dtype, headDim);
  // The rows are the last of their sequences: row r of n sees all keys but the n - 1 - r last.
  const keysSeen = sequences * tokensEach * (context - (tokensEach - 1) / 2);
  return {
    op: "paged_attention",
    dtype,
    shape: `${heads}/${kvHeads}x${headDim}@${context}${sequences === 1 ? "" : `*${sequences}`}`,
    tokens: [tokens],
    source: tokensEach === 1 ? "memory" : "cache",
    streamedBytes: 2 * cacheBytes + 64,
    bytes: () => readBytes + 2 * tokens * heads * headDim * F32_BYTES,
    operations: () => 4 * keysSeen * heads * headDim,
    arithmetic: "f32",
    repackable: false,
    record(recorder, parity) {
      const rows = recorder.tokens(parity);
      const q = recorder.input(`q${parity}`, "f32", [rows, heads, headDim], wave);
      const out = recorder.output(`out${parity}`, "f32", [rows, heads * headDim]);
      const inputs = {
        block_tables: recorder.input(
          `block_tables${parity}`,
          "i32",
          [sequences, blocksEach],
          numbers(Array.from({ length: sequences * blocksEach }, (_, index) => 1 + index)),
        ),
        sequence_starts: recorder.input(
          `sequence_starts${parity}`,
          "i32",
          [sequences + 1],
          multiples(tokensEach),
        ),
        context_lengths: recorder.input(
          `context_lengths${parity}`,
          "i32",
          [sequences],
          numbers(Array.from({ length: sequences }, () => context)),
        ),
      };
      return (copy) => {
        const k_cache = recorder.streamed("keys", dtype, cacheShape, copy);
        const v_cache = recorder.streamed("values", dtype, cacheShape, copy);
        const attributes = { scale: headDim ** -0.5, sliding_window: 0, soft_cap: 0 };
        recorder.record("paged_attention", { out, q, k_cache, v_cache, ...inputs }, attributes);
      };
    },
  };
}
