/** The models that are measured: their shapes, what of them is read and computed in a step. */

import { bytesOfElements, type DType } from "../../../src/backend/dtype.ts";

export interface Shape {
  readonly name: string;
  readonly layers: number;
  readonly width: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly feedForward: number;
  readonly vocabulary: number;
  readonly contextLength: number;
  readonly ropeTheta: number;
}

export const LLAMA_8B: Shape = {
  name: "Llama-3.1-8B",
  layers: 32,
  width: 4096,
  heads: 32,
  keyValueHeads: 8,
  headDim: 128,
  feedForward: 14_336,
  vocabulary: 128_256,
  contextLength: 16_384,
  ropeTheta: 500_000,
};

/** For a run that only shows that the script works. */
export const TINY: Shape = {
  name: "tiny",
  layers: 2,
  width: 256,
  heads: 4,
  keyValueHeads: 2,
  headDim: 64,
  feedForward: 512,
  vocabulary: 320,
  contextLength: 256,
  ropeTheta: 10_000,
};

export type WeightType = Extract<DType, "bf16" | "q8_0" | "q4_k">;

/** Matrices, rows by columns; the embedding table is looked up, not multiplied. */
export function matricesOf(
  shape: Shape,
): readonly { readonly name: string; readonly shape: [number, number] }[] {
  const { width, feedForward, vocabulary, headDim, heads, keyValueHeads } = shape;
  const layer = (index: number): { name: string; shape: [number, number] }[] =>
    (
      [
        ["attn_q", heads * headDim, width],
        ["attn_k", keyValueHeads * headDim, width],
        ["attn_v", keyValueHeads * headDim, width],
        ["attn_output", width, heads * headDim],
        ["ffn_gate", feedForward, width],
        ["ffn_up", feedForward, width],
        ["ffn_down", width, feedForward],
      ] as const
    ).map(([name, rows, columns]) => ({ name: `blk.${index}.${name}.weight`, shape: [rows, columns] }));
  return [
    ...Array.from({ length: shape.layers }, (_, index) => layer(index)).flat(),
    { name: "output.weight", shape: [vocabulary, width] },
  ];
}

/** Elements of all matrices that a token is multiplied with. */
export function multipliedElements(shape: Shape): number {
  return matricesOf(shape).reduce((sum, { shape: [rows, columns] }) => sum + rows * columns, 0);
}

/** Bytes that a step of decoding must read at least: every matrix once, and the keys and values of the context. */
export function decodeBytes(shape: Shape, weights: WeightType, batch: number, context: number): number {
  return bytesOfElements(weights, multipliedElements(shape)) + batch * context * cacheTokenBytes(shape);
}

/** Keys and values of a token as f16. */
export function cacheTokenBytes({ layers, keyValueHeads, headDim }: Shape): number {
  return 2 * layers * keyValueHeads * headDim * 2;
}

/** Operations of a prompt: two for each element and token, and the causal attention; logits of the last token alone. */
export function prefillOperations(shape: Shape, tokens: number): number {
  const { vocabulary, width, layers, heads, headDim } = shape;
  const inLayers = 2 * (multipliedElements(shape) - vocabulary * width) * tokens;
  const attention = 4 * layers * heads * headDim * ((tokens * (tokens + 1)) / 2);
  return inLayers + attention + 2 * vocabulary * width;
}
