/**
 * Which weights the CPU's kernels copy into a layout that computes faster (`--repack`): each level's library knows its
 * own. Not part of what runs programs, so it is looked up when it is first used.
 */

import { FFIType, ptr } from "bun:ffi";
import { DTYPES, type DType } from "./dtype.ts";
import { furtherFunctions } from "./further-functions.ts";
import { check, cpuLibraryPath, openCpuLibrary } from "./library.ts";

const { i32, u32, ptr: pointer } = FFIType;
const asking = furtherFunctions({
  mistral_cpu_has_faster_layout: { args: [u32, pointer], returns: i32 },
} as const);

/**
 * Whether weights of a type are re-laid by a level's kernels, on this machine.
 * @param instructionSet the best that is built when not given
 * @throws MistralError `backend` for types that are not of weights, and for a library of older sources
 */
export function hasFasterLayout(dtype: DType, instructionSet?: string): boolean {
  const library = openCpuLibrary(instructionSet);
  const out = new Uint32Array(1);
  const { mistral_cpu_has_faster_layout } = asking(cpuLibraryPath(library.instructionSet));
  check(library.functions, mistral_cpu_has_faster_layout(DTYPES[dtype].code, ptr(out)));
  return out[0] === 1;
}
