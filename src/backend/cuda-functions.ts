/**
 * What the CUDA library can do beyond the functions that every backend has. Looked up when it is first used, so that
 * a library of older sources still runs programs.
 */

import { dlopen, FFIType } from "bun:ffi";
import { MistralError } from "../errors.ts";
import { cudaLibraryPath, openCudaLibrary } from "./library.ts";

const { i32, u32, u64_fast, ptr: pointer } = FFIType;

const SYMBOLS = {
  mistral_cuda_capability_min: { args: [], returns: u32 },
  mistral_cuda_describe: { args: [u32, pointer], returns: i32 },
  mistral_cuda_map_file: {
    args: [u64_fast, pointer, u64_fast, u64_fast, FFIType.function, pointer],
    returns: i32,
  },
  mistral_cuda_products: { args: [u64_fast, pointer, pointer, u64_fast], returns: u64_fast },
  mistral_cuda_graph_budget: { args: [u64_fast, u64_fast], returns: i32 },
  mistral_cuda_graph_totals: { args: [u64_fast, pointer], returns: i32 },
} as const;

export type CudaFunctions = ReturnType<typeof dlopen<typeof SYMBOLS>>["symbols"];

let opened: CudaFunctions | undefined;

/** @throws MistralError `backend` when the library is not built, or is too old. */
export function cudaFunctions(): CudaFunctions {
  if (opened !== undefined) return opened;
  openCudaLibrary();
  const path = cudaLibraryPath();
  try {
    opened = dlopen(path, SYMBOLS).symbols;
  } catch (cause) {
    throw new MistralError(
      "backend",
      `${path} is of older sources: ${String(cause)}; run \`bun run build --all\``,
      { cause },
    );
  }
  return opened;
}
