/** What the kernel benchmark knows of a case: what it has to move and to compute, and how its op is recorded. */

import type { DType } from "../../../backend/dtype.ts";
import type { OpName } from "../../../graph/ops.ts";
import type { Arithmetic } from "../machine-limits.ts";
import type { CaseRecorder } from "./case-program.ts";

/** Where an op finds what it streams. */
export type Source = "memory" | "cache";

export interface KernelCase {
  readonly op: OpName;
  /** Of what is streamed: weights or cache; f32 where there is only one. */
  readonly dtype: DType;
  readonly shape: string;
  /** Rows of the op; one row of the table each. */
  readonly tokens: readonly number[];
  /** Where the weights come from in a step of a real model. */
  readonly source: Source;
  /** Bytes of a copy of what is streamed; 0 when nothing is. */
  readonly streamedBytes: number;
  /** Bytes that must be read or written at least: weights as they are stored in a file. */
  readonly bytes: (tokens: number) => number;
  /** Operations: a multiply-add is two. */
  readonly operations: (tokens: number) => number;
  readonly arithmetic: Arithmetic;
  /** Whether weights can be re-laid for speed. */
  readonly repackable: boolean;
  /** Declares the op's tensors; the function that comes back records the op over a copy. */
  readonly record: (recorder: CaseRecorder, parity: 0 | 1) => (copy: number) => void;
}

/** Sizes of well-known models. */
export interface ModelShape {
  readonly name: string;
  readonly width: number;
  readonly feedForward: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
}

export const F32_BYTES = 4;
