/**
 * What this machine can do at best, measured by the kernel library with the instructions that its kernels use: the
 * bounds that speeds are judged by. Not part of what runs programs, so it is looked up when it is first used.
 */

import { FFIType, ptr } from "bun:ffi";
import { furtherFunctions } from "./further-functions.ts";
import { check, cpuLibraryPath, openCpuLibrary } from "./library.ts";

/** `kernels/cpu/measure.zig` has the same numbers. */
const MEASUREMENTS = { read: 0, f32_multiply_add: 1, int8_dot: 2, int8_tile: 3, bf16_tile: 4 } as const;

/**
 * Bytes per second read from memory of a given size; operations per second between registers, of which a
 * multiply-add is two: of f32, of 8-bit integers in vectors, and in the tile unit; of bfloat16 in the tile unit.
 */
export type Measurement = keyof typeof MEASUREMENTS;

export interface MeasurementOptions {
  readonly what: Measurement;
  readonly threads: number;
  readonly seconds: number;
  /** Size of the memory that is read. */
  readonly bytes?: number;
  /** Whose instructions to use; the best there are when not given. */
  readonly instructionSet?: string;
}

/** Per second. */
export interface MeasuredRate {
  readonly best: number;
  readonly median: number;
}

const { f64, i32, u32, u64_fast, ptr: pointer } = FFIType;
const measuring = furtherFunctions({
  mistral_measure: { args: [u32, u32, u64_fast, f64, pointer], returns: i32 },
} as const);

/** Throws MistralError `backend` where the processor, or a library of older sources, cannot do it. */
export function measureRate({
  what,
  threads,
  seconds,
  bytes = 0,
  instructionSet,
}: MeasurementOptions): MeasuredRate {
  const library = openCpuLibrary(instructionSet);
  const out = new Float64Array(2);
  const { mistral_measure } = measuring(cpuLibraryPath(library.instructionSet));
  check(library.functions, mistral_measure(threads, MEASUREMENTS[what], bytes, seconds, ptr(out)));
  return { best: out[0]!, median: out[1]! };
}
