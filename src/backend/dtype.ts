/**
 * Element types of tensors. The code of a type is its GGML number, so that a GGUF type id, an encoded program
 * and a kernel all speak of the same thing (GGUF specification, "ggml_type"). A type that no file holds has a number
 * of ours, from 1000 on.
 *
 * `f8e4m3` is a type of KV caches alone: OCP's E4M3 (OCP 8-bit Floating Point Specification, 1.0) in the form without
 * infinities, `s eeee mmm` with a bias of 7. 0x7f and 0xff are NaN, the largest number is 448, the smallest 2^-9. A
 * write rounds to nearest, ties to even, and what is beyond 448, infinities included, becomes 448 of its sign; NaN is
 * stored as 0x7f. There is no scale: engines that calibrate a factor for each tensor (vLLM's `k_scale` and `v_scale`)
 * take 1 without a calibration, and keys and values of the models that we read lie well inside 448.
 */

export interface DTypeInfo {
  readonly code: number;
  /** Elements in one block; 1 for plain types. A row of a tensor is a whole number of blocks. */
  readonly blockElements: number;
  /** Bytes of one block. */
  readonly blockBytes: number;
}

export const DTYPES = {
  f32: { code: 0, blockElements: 1, blockBytes: 4 },
  f16: { code: 1, blockElements: 1, blockBytes: 2 },
  q4_0: { code: 2, blockElements: 32, blockBytes: 18 },
  q4_1: { code: 3, blockElements: 32, blockBytes: 20 },
  q5_0: { code: 6, blockElements: 32, blockBytes: 22 },
  q5_1: { code: 7, blockElements: 32, blockBytes: 24 },
  q8_0: { code: 8, blockElements: 32, blockBytes: 34 },
  q2_k: { code: 10, blockElements: 256, blockBytes: 84 },
  q3_k: { code: 11, blockElements: 256, blockBytes: 110 },
  q4_k: { code: 12, blockElements: 256, blockBytes: 144 },
  q5_k: { code: 13, blockElements: 256, blockBytes: 176 },
  q6_k: { code: 14, blockElements: 256, blockBytes: 210 },
  iq4_nl: { code: 20, blockElements: 32, blockBytes: 18 },
  i32: { code: 26, blockElements: 1, blockBytes: 4 },
  bf16: { code: 30, blockElements: 1, blockBytes: 2 },
  mxfp4: { code: 39, blockElements: 32, blockBytes: 17 },
  f8e4m3: { code: 1000, blockElements: 1, blockBytes: 1 },
} as const satisfies Record<string, DTypeInfo>;

export type DType = keyof typeof DTYPES;

/** The types that a file can hold. */
export type FileDType = Exclude<DType, "f8e4m3">;

function isFileDType(dtype: DType): dtype is FileDType {
  return dtype !== "f8e4m3";
}

export const FILE_DTYPES: readonly FileDType[] = (Object.keys(DTYPES) as DType[]).filter(isFileDType);

const BY_CODE = new Map<number, FileDType>(FILE_DTYPES.map((dtype) => [DTYPES[dtype].code, dtype]));

/** The type with this GGML number, or undefined when we do not read it. */
export function dtypeOfCode(code: number): FileDType | undefined {
  return BY_CODE.get(code);
}

/** Bytes of `elements` consecutive elements; `elements` must be a whole number of blocks. */
export function bytesOfElements(dtype: DType, elements: number): number {
  const { blockElements, blockBytes } = DTYPES[dtype];
  if (elements % blockElements !== 0) {
    throw new RangeError(
      `${elements} elements are not a whole number of ${dtype} blocks of ${blockElements}`,
    );
  }
  return (elements / blockElements) * blockBytes;
}
