/**
 * Finds and opens a kernel library and gives its C ABI names and types (`kernels/cpu.zig`, `kernels/cuda.zig`). The only place that
 * says what the native functions look like.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../errors.ts";
import { EMULATED_DRIVER } from "./cuda-driver.ts";
import { INSTRUCTION_SETS, type InstructionSet, supportedInstructionSets } from "./instruction-set.ts";

const { i32, u32, u64_fast, ptr: pointer } = FFIType;

const SYMBOLS = {
  mistral_info: { args: [pointer], returns: i32 },
  mistral_last_error: { args: [pointer, u64_fast], returns: u64_fast },
  mistral_device_count: { args: [pointer], returns: i32 },
  mistral_device_open: { args: [pointer, pointer], returns: i32 },
  mistral_device_info: { args: [u64_fast, pointer], returns: i32 },
  mistral_device_close: { args: [u64_fast], returns: i32 },
  mistral_buffer_create: { args: [u64_fast, u64_fast, u32, pointer], returns: i32 },
  mistral_buffer_wrap: { args: [u64_fast, pointer, u64_fast, pointer], returns: i32 },
  mistral_buffer_map_file: { args: [u64_fast, pointer, u64_fast, u64_fast, pointer], returns: i32 },
  mistral_buffer_address: { args: [u64_fast], returns: u64_fast },
  mistral_buffer_free: { args: [u64_fast], returns: i32 },
  mistral_buffer_write: { args: [u64_fast, u64_fast, pointer, u64_fast], returns: i32 },
  mistral_buffer_read: { args: [u64_fast, u64_fast, pointer, u64_fast], returns: i32 },
  mistral_program_create: {
    args: [u64_fast, pointer, u64_fast, pointer, u64_fast, u32, pointer],
    returns: i32,
  },
  mistral_program_run: { args: [u64_fast, pointer, u64_fast], returns: i32 },
  mistral_program_workspace_bytes: { args: [u64_fast], returns: u64_fast },
  mistral_program_free: { args: [u64_fast], returns: i32 },
  mistral_synchronize: { args: [u64_fast], returns: i32 },
} as const;

export type NativeFunctions = ReturnType<typeof dlopen<typeof SYMBOLS>>["symbols"];

/** Which backend a device belongs to. */
export type DeviceKind = "cpu" | "cuda";

export interface KernelLibrary {
  readonly functions: NativeFunctions;
  readonly threadsMax: number;
}

export interface CpuLibrary extends KernelLibrary {
  readonly instructionSet: InstructionSet;
}

const ABI_VERSION = 3;
const INFO_BYTES = 64;
const ERROR_TEXT_BYTES = 1024;

/** Where the build installs the libraries, unless a test of kernels names another place. */
const LIBRARY_FOLDER =
  process.env.MISTRALRS_KERNEL_FOLDER || join(import.meta.dir, "..", "..", "zig-out", "lib");

const opened = new Map<InstructionSet, CpuLibrary>();
let openedCuda: KernelLibrary | undefined;

/**
 * Opens the library of this level, or the best built one that the processor runs. A process opens each once.
 * @throws MistralError `backend` when none fits, `invalid_configuration` when the named level cannot run here.
 */
export function openCpuLibrary(wanted?: string): CpuLibrary {
  const level = wanted === undefined ? bestLevel() : checkedLevel(wanted);
  const known = opened.get(level);
  if (known !== undefined) return known;
  const library = { ...load(cpuLibraryPath(level)), instructionSet: level };
  opened.set(level, library);
  return library;
}

/**
 * Opens the CUDA library. It loads on any machine; whether there is a driver and a device it says when it is asked.
 * @throws MistralError `backend` when it is not built.
 */
export function openCudaLibrary(): KernelLibrary {
  if (openedCuda !== undefined) return openedCuda;
  if (!isCudaBuilt()) {
    throw new MistralError(
      "backend",
      `the CUDA kernels are not built: there is no ${cudaLibraryPath()}; run \`bun run build --all\``,
    );
  }
  openedCuda = load(cudaLibraryPath());
  return openedCuda;
}

export function isCudaBuilt(): boolean {
  return existsSync(cudaLibraryPath());
}

/** The driver that runs CUDA kernels on the processor, for tests; undefined when it is not built. */
export function emulatedCudaDriver(): string | undefined {
  const path = join(LIBRARY_FOLDER, EMULATED_DRIVER);
  return existsSync(path) ? path : undefined;
}

/** The levels that are built and that this processor runs, best first. */
export function availableLevels(): InstructionSet[] {
  return supportedInstructionSets().filter((level) => existsSync(cpuLibraryPath(level)));
}

function bestLevel(): InstructionSet {
  const best = availableLevels()[0];
  if (best !== undefined) return best;
  const supported = supportedInstructionSets();
  throw new MistralError(
    "backend",
    supported.length === 0
      ? `no CPU kernels exist for ${process.platform} on ${process.arch}`
      : `no kernel library for this processor (${supported.join(", ")}) in ${LIBRARY_FOLDER}; run \`bun run build\``,
  );
}

function checkedLevel(wanted: string): InstructionSet {
  const level = INSTRUCTION_SETS.find((name) => name === wanted);
  const supported = supportedInstructionSets();
  if (level === undefined || !supported.includes(level)) {
    throw new MistralError(
      "invalid_configuration",
      `instruction set ${JSON.stringify(wanted)} ${level === undefined ? "is not known" : "is not what this processor has"}; possible here: ${supported.join(", ")}`,
    );
  }
  if (!existsSync(cpuLibraryPath(level))) {
    throw new MistralError(
      "backend",
      `the library of instruction set ${level} is not built; run \`bun run build --all\``,
    );
  }
  return level;
}

/** Where the CUDA library is. */
export function cudaLibraryPath(): string {
  return join(LIBRARY_FOLDER, "libmistral_cuda.so");
}

/** Where the library of a level is. */
export function cpuLibraryPath(level: InstructionSet): string {
  return join(LIBRARY_FOLDER, `libmistral_cpu.${level}.${process.platform === "darwin" ? "dylib" : "so"}`);
}

function load(path: string): KernelLibrary {
  let functions: NativeFunctions;
  try {
    functions = dlopen(path, SYMBOLS).symbols;
  } catch (cause) {
    throw new MistralError("backend", `cannot load ${path}: ${String(cause)}; run \`bun run build\``, {
      cause,
    });
  }
  const info = new DataView(new ArrayBuffer(INFO_BYTES));
  info.setUint32(0, INFO_BYTES, true);
  const status = functions.mistral_info(ptr(info.buffer));
  const version = info.getUint32(4, true);
  if (status !== 0 || version !== ABI_VERSION) {
    throw new MistralError(
      "backend",
      `${path} has interface ${version}, not ${ABI_VERSION}; run \`bun run build\``,
    );
  }
  return { functions, threadsMax: info.getUint32(12, true) };
}

/** Throws the library's own explanation when a status is not 0. */
export function check(functions: NativeFunctions, status: number): void {
  if (status === 0) return;
  const text = new Uint8Array(ERROR_TEXT_BYTES);
  const length = Number(functions.mistral_last_error(ptr(text), ERROR_TEXT_BYTES));
  throw new MistralError(
    "backend",
    new TextDecoder().decode(text.subarray(0, Math.min(length, ERROR_TEXT_BYTES))),
  );
}
