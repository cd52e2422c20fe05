/** Where the time of a program's steps goes on the processor: what each stage worked and waited. */

import { FFIType, ptr } from "bun:ffi";
import { furtherFunctions } from "./further-functions.ts";
import { type CpuLibrary, check, cpuLibraryPath } from "./library.ts";

/** What a stage does: whole rows through some ops, one op in units, or the end of an attention that was split. */
export type StageKind = "rows" | "units" | "combine";
const STAGE_KINDS: readonly StageKind[] = ["rows", "units", "combine"];

/** A stage of a program, as the thread saw it that runs the steps. */
export interface StageTime {
  readonly kind: StageKind;
  /** The ops of the stage, by their places in the program. A matrix product among rows is the rounding of its x. */
  readonly firstOp: number;
  readonly lastOp: number;
  /** Steps that ran through it. */
  readonly runs: number;
  readonly workSeconds: number;
  /** For the other threads to end their part. */
  readonly waitSeconds: number;
}

const { i32, u64_fast, ptr: pointer } = FFIType;
const functionsOf = furtherFunctions({
  mistral_cpu_profile: { args: [u64_fast], returns: i32 },
  mistral_cpu_profile_read: { args: [u64_fast, pointer, u64_fast], returns: u64_fast },
} as const);
/** Four 32-bit numbers and two 64-bit ones: `StageTime` in `kernels/cpu/profile.zig`. */
const STAGE_BYTES = 32;

/** Measures the stages of a program from now on, from zero. */
export function startProfile(library: CpuLibrary, program: number): void {
  check(library.functions, functionsOf(cpuLibraryPath(library.instructionSet)).mistral_cpu_profile(program));
}

/** What was measured since the start. */
export function readProfile(library: CpuLibrary, program: number): StageTime[] {
  const { mistral_cpu_profile_read: read } = functionsOf(cpuLibraryPath(library.instructionSet));
  const count = Number(read(program, null, 0));
  const bytes = new Uint8Array(count * STAGE_BYTES);
  if (count > 0) read(program, ptr(bytes), count);
  const view = new DataView(bytes.buffer);
  return Array.from({ length: count }, (_, index) => {
    const at = index * STAGE_BYTES;
    return {
      kind: STAGE_KINDS[view.getUint32(at, true)]!,
      firstOp: view.getUint32(at + 4, true),
      lastOp: view.getUint32(at + 8, true),
      runs: view.getUint32(at + 12, true),
      workSeconds: Number(view.getBigUint64(at + 16, true)) / 1e9,
      waitSeconds: Number(view.getBigUint64(at + 24, true)) / 1e9,
    };
  });
}
