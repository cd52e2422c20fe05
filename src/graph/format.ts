/**
 * The layout of an encoded program: one array of little-endian u32 words. `encode.ts` writes it, the kernels
 * (through the generated `kernels/abi/ops.gen.zig`) read it. Nothing else knows these numbers.
 *
 * header | maximum of each symbolic dimension | tensor records | op records
 */

/** "MTSP" read as a big-endian number. */
export const PROGRAM_MAGIC = 0x4d545350;
export const PROGRAM_VERSION = 1;

/** An operand that is not given. */
export const ABSENT_TENSOR = 0xffffffff;

export const HEADER_WORDS = 8;
export const TENSOR_WORDS = 16;
export const OP_WORDS = 32;
export const RANK_MAX = 4;

/** Word of each field in the header; the rest are zero. */
export const HEADER = {
  magic: 0,
  version: 1,
  dim_count: 2,
  tensor_count: 3,
  op_count: 4,
  buffer_count: 5,
} as const;

/** Word of each field in a tensor record; the rest are zero. */
export const TENSOR = {
  dtype: 0,
  /** Index into the list of buffers handed over beside the words. */
  buffer: 1,
  offset_low: 2,
  offset_high: 3,
  rank: 4,
  /** 0: the leading dimension is constant; else 1 + index of the symbolic dimension. */
  leading_symbol: 5,
  /** Elements from one leading index to the next; longer than the row for a view of columns. */
  leading_stride: 6,
  flags: 7,
  /** Four words; unused dimensions are 1. With a symbol, shape[0] is added to the symbol's value. */
  shape: 8,
} as const;

export const TENSOR_FLAG_READ_ONLY = 1;

/** Word of each field in an op record; word 3 is zero. */
export const OP = {
  code: 0,
  operand_count: 1,
  attribute_count: 2,
  operands: 4,
  attributes: 18,
} as const;
