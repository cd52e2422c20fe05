/**
 * Writes a recorded program as the words that the kernels validate and run (`format.ts` has the layout).
 */

import { DTYPES } from "../backend/dtype.ts";
import type { RecordedOp } from "./builder.ts";
import {
  ABSENT_TENSOR,
  HEADER,
  HEADER_WORDS,
  OP,
  OP_WORDS,
  PROGRAM_MAGIC,
  PROGRAM_VERSION,
  TENSOR,
  TENSOR_FLAG_READ_ONLY,
  TENSOR_WORDS,
} from "./format.ts";
import type { MemoryPlan } from "./memory-plan.ts";
import { OPS, type OpSpec } from "./ops.ts";
import { type Dimension, rankOf, type Tensor } from "./tensor.ts";

interface ProgramParts {
  readonly dimensions: readonly Dimension[];
  readonly tensors: readonly Tensor[];
  readonly ops: readonly RecordedOp[];
  readonly bufferCount: number;
  readonly plan: MemoryPlan;
}

function encodeTensor(words: Uint32Array, tensor: Tensor, plan: MemoryPlan): void {
  const { storage, leading } = tensor;
  const base = storage.kind === "arena" ? plan.storages[storage.index]!.offset : storage.byteOffset;
  const offset = base + tensor.byteOffset;
  words[TENSOR.dtype] = DTYPES[tensor.dtype].code;
  words[TENSOR.buffer] = storage.kind === "arena" ? 0 : storage.slot;
  words[TENSOR.offset_low] = offset % 2 ** 32;
  words[TENSOR.offset_high] = Math.floor(offset / 2 ** 32);
  words[TENSOR.rank] = rankOf(tensor);
  words[TENSOR.leading_symbol] = leading.symbol === undefined ? 0 : 1 + leading.symbol.index;
  words[TENSOR.leading_stride] = tensor.leadingStride;
  words[TENSOR.flags] = tensor.readOnly ? TENSOR_FLAG_READ_ONLY : 0;
  words.set([leading.plus, ...tensor.inner, 1, 1, 1].slice(0, 4), TENSOR.shape);
}

function encodeOp(words: Uint32Array, op: RecordedOp): void {
  const spec: OpSpec = OPS[op.name];
  words[OP.code] = spec.code;
  words[OP.operand_count] = spec.operands.length;
  words[OP.attribute_count] = spec.attributes.length;
  op.operands.forEach((tensor, index) => {
    words[OP.operands + index] = tensor?.id ?? ABSENT_TENSOR;
  });
  const integers = new Int32Array(words.buffer, words.byteOffset, OP_WORDS);
  const floats = new Float32Array(words.buffer, words.byteOffset, OP_WORDS);
  op.attributes.forEach((value, index) => {
    const view = spec.attributes[index]!.type === "f32" ? floats : integers;
    view[OP.attributes + index] = value;
  });
}

/** The words of a program. Pure; the same recording gives the same words. */
export function encodeProgram({ dimensions, tensors, ops, bufferCount, plan }: ProgramParts): Uint32Array {
  const tensorsAt = HEADER_WORDS + dimensions.length;
  const opsAt = tensorsAt + tensors.length * TENSOR_WORDS;
  const words = new Uint32Array(opsAt + ops.length * OP_WORDS);
  words[HEADER.magic] = PROGRAM_MAGIC;
  words[HEADER.version] = PROGRAM_VERSION;
  words[HEADER.dim_count] = dimensions.length;
  words[HEADER.tensor_count] = tensors.length;
  words[HEADER.op_count] = ops.length;
  words[HEADER.buffer_count] = bufferCount;
  dimensions.forEach(({ maximum }, index) => {
    words[HEADER_WORDS + index] = maximum;
  });
  tensors.forEach((tensor, index) => {
    const start = tensorsAt + index * TENSOR_WORDS;
    encodeTensor(words.subarray(start, start + TENSOR_WORDS), tensor, plan);
  });
  ops.forEach((op, index) => {
    const start = opsAt + index * OP_WORDS;
    encodeOp(words.subarray(start, start + OP_WORDS), op);
  });
  return words;
}
