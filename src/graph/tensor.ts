/**
 * Tensors of a program as they are recorded: a name, an element type, a shape whose leading dimension may be
 * symbolic, and the storage that holds the elements. A tensor never holds data; it says where data will be.
 */

import { bytesOfElements, type DType } from "../backend/dtype.ts";

/** A symbolic dimension. Every run gives it a value from 0 to `maximum`. */
export interface Dimension {
  readonly index: number;
  readonly name: string;
  readonly maximum: number;
}

/** The first dimension of a tensor: `symbol + plus`, or `plus` alone. */
export interface Leading {
  readonly symbol: Dimension | undefined;
  readonly plus: number;
}

/** A shape as the recorder writes it: `[tokens, 576]`, `[{ symbol: seqs, plus: 1 }]`, `[49152, 576]`. */
export type Shape = readonly [Dimension | Leading | number, ...number[]];

/** Memory of activations; the memory plan decides where in the arena it lies. */
export interface ArenaStorage {
  readonly kind: "arena";
  readonly index: number;
  readonly name: string;
  /** Bytes when every symbolic dimension is at its maximum. */
  readonly bytes: number;
  /** Whether the contents must survive the last op, to be read by the host. */
  readonly keep: boolean;
}

/** Memory in a buffer that is handed over beside the program: weights, step inputs, caches, outputs. */
export interface BufferStorage {
  readonly kind: "buffer";
  /** Position in the list of buffers. */
  readonly slot: number;
  readonly byteOffset: number;
}

export interface Tensor {
  readonly id: number;
  readonly name: string;
  readonly dtype: DType;
  readonly leading: Leading;
  /** The dimensions after the leading one; always dense. */
  readonly inner: readonly number[];
  /** Elements from one leading index to the next; 1 for rank 1. */
  readonly leadingStride: number;
  readonly storage: ArenaStorage | BufferStorage;
  /** Bytes from the start of the storage to the first element. */
  readonly byteOffset: number;
  readonly readOnly: boolean;
}

export function product(values: readonly number[]): number {
  return values.reduce((total, value) => total * value, 1);
}

export function leadingOf(lead: Shape[0]): Leading {
  if (typeof lead === "number") return { symbol: undefined, plus: lead };
  return "plus" in lead ? lead : { symbol: lead, plus: 0 };
}

/** The largest value of a leading dimension. */
export function leadingMaximum({ symbol, plus }: Leading): number {
  return (symbol?.maximum ?? 0) + plus;
}

export function sameLeading(a: Leading, b: Leading): boolean {
  return a.symbol === b.symbol && a.plus === b.plus;
}

export function rankOf(tensor: Tensor): number {
  return 1 + tensor.inner.length;
}

/** Elements of one leading index. */
export function rowElements(tensor: Tensor): number {
  return product(tensor.inner);
}

/** Bytes that a dense tensor of this shape spans when its symbols are at their maximum. */
export function denseBytes(dtype: DType, leading: Leading, inner: readonly number[]): number {
  if (inner.length === 0) return bytesOfElements(dtype, leadingMaximum(leading));
  // The last dimension is a row; rows are whole blocks, so a row is never split across blocks.
  const outer = leadingMaximum(leading) * product(inner.slice(0, -1));
  return outer * bytesOfElements(dtype, inner.at(-1)!);
}

export function describeLeading({ symbol, plus }: Leading): string {
  if (symbol === undefined) return String(plus);
  return plus === 0 ? symbol.name : `${symbol.name} + ${plus}`;
}

/** `layers.0.qkv f32 [tokens, 960]` */
export function describeTensor(tensor: Tensor): string {
  return `${tensor.name} ${tensor.dtype} [${[describeLeading(tensor.leading), ...tensor.inner].join(", ")}]`;
}
