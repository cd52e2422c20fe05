/** All that the kernel benchmark can measure: every op that takes a share of a step, at the shapes of well-known models. */

import { FILE_DTYPES } from "../../../backend/dtype.ts";
import { attentionCases } from "./attention-cases.ts";
import type { KernelCase, ModelShape } from "./kernel-case.ts";
import { productCases } from "./product-cases.ts";
import { embedCase, rowCases } from "./row-cases.ts";
import { sampleCases } from "./sample-cases.ts";

const MODELS: readonly ModelShape[] = [
  { name: "Qwen3-0.6B", width: 1024, feedForward: 3072, heads: 16, kvHeads: 8, headDim: 128 },
  { name: "Llama-3.2-1B", width: 2048, feedForward: 8192, heads: 32, kvHeads: 8, headDim: 64 },
];

export const WEIGHT_TYPES = FILE_DTYPES.filter((dtype) => dtype !== "i32");

/** All cases; `products` are matrices to multiply with, columns by rows, besides the usual. */
export function kernelCases(products: readonly (readonly [number, number])[] = []): KernelCase[] {
  const shapes = [...MODELS.map(({ width, feedForward }) => [width, feedForward] as const), ...products];
  return [
    ...WEIGHT_TYPES.flatMap((dtype) => shapes.flatMap((shape) => productCases(dtype, shape))),
    ...MODELS.flatMap(attentionCases),
    ...MODELS.flatMap(rowCases),
    ...WEIGHT_TYPES.map(embedCase),
    ...sampleCases(),
  ];
}
