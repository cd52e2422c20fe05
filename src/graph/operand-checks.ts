/** The checks of operands that several ops share. A failed one is a mistake in a model file: a plain Error. */

import type { DType } from "../backend/dtype.ts";
import type { OpName } from "./ops.ts";
import { describeTensor, rankOf, sameLeading, type Tensor } from "./tensor.ts";

/** The message is only made when it is needed: a load records hundreds of ops. */
export function check(condition: boolean, op: OpName, message: () => string): asserts condition {
  if (!condition) throw new Error(`${op}: ${message()}`);
}

/** Checks the type and everything but the leading dimension. */
export function expectInner(op: OpName, tensor: Tensor, dtype: DType, inner: readonly number[]): void {
  const same = tensor.inner.length === inner.length && tensor.inner.every((size, i) => size === inner[i]);
  check(
    same && tensor.dtype === dtype,
    op,
    () => `${describeTensor(tensor)} must be ${dtype} [*, ${inner.join(", ")}]`,
  );
}

/** Checks the element type of a weight, which is one that a file can hold. */
export function expectWeight(op: OpName, weight: Tensor): void {
  const isCacheType = weight.dtype === "f8e4m3";
  check(!isCacheType, op, () => `${describeTensor(weight)} has a type of KV caches alone`);
}

/** Checks a constant vector: a bias or the weight of a norm. */
export function expectVector(op: OpName, tensor: Tensor, length: number): void {
  const { symbol, plus } = tensor.leading;
  const ok = rankOf(tensor) === 1 && tensor.dtype === "f32" && symbol === undefined && plus === length;
  check(ok, op, () => `${describeTensor(tensor)} must be f32 [${length}]`);
}

export function expectSameRows(op: OpName, tensor: Tensor, like: Tensor): void {
  check(
    sameLeading(tensor.leading, like.leading),
    op,
    () => `${describeTensor(tensor)} and ${describeTensor(like)} must have the same leading dimension`,
  );
}
