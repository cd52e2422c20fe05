/** What the CUDA library can do beyond the functions that every backend has. */

import { FFIType } from "bun:ffi";
import { furtherFunctions } from "./further-functions.ts";
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

const functionsOf = furtherFunctions(SYMBOLS, "bun run build --all");

/** @throws MistralError `backend` when the library is not built, or is too old. */
export function cudaFunctions(): ReturnType<typeof functionsOf> {
  openCudaLibrary();
  return functionsOf(cudaLibraryPath());
}
