/**
 * Finds and opens a kernel library and gives its C ABI names and types (`kernels/cpu.zig`). The only place that
 * says what the native functions look like.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../errors.ts";
import { INSTRUCTION_SETS, type InstructionSet, supportedInstructionSets } from "./instruction-set.ts";

const { i32, u32, u64_fast, ptr: pointer } = FFIType;

const SYMBOLS = {
  mistral_info: { args: [pointer], returns: i32 },
  mistral_last_error: { args: [pointer, u64_fast], returns: u64_fast },
  mistral_device_open: { args: [u32, pointer], returns: i32 },
  mistral_device_close: { args: [u64_fast], returns: i32 },
  mistral_buffer_create: { args: [u64_fast, u64_fast, pointer], returns: i32 },
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

export interface KernelLibrary {
  readonly functions: NativeFunctions;
  readonly instructionSet: InstructionSet;
  readonly threadsMax: number;
}

const ABI_VERSION = 2;
const INFO_BYTES = 64;
const ERROR_TEXT_BYTES = 1024;

/** Where the build installs the libraries. */
const LIBRARY_FOLDER = join(import.meta.dir, "..", "..", "zig-out", "lib");

const opened = new Map<InstructionSet, KernelLibrary>();

/**
 * Opens the library of this level, or the best built one that the processor runs. A process opens each once.
 * @throws MistralError `backend` when none fits, `invalid_configuration` when the named level cannot run here.
 */
export function openLibrary(wanted?: string): KernelLibrary {
  const level = wanted === undefined ? bestLevel() : checkedLevel(wanted);
  const known = opened.get(level);
  if (known !== undefined) return known;
  const library = load(level);
  opened.set(level, library);
  return library;
}

/** The levels that are built and that this processor runs, best first. */
export function availableLevels(): InstructionSet[] {
  return supportedInstructionSets().filter((level) => existsSync(libraryPath(level)));
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
  if (!existsSync(libraryPath(level))) {
    throw new MistralError(
      "backend",
      `the library of instruction set ${level} is not built; run \`bun run build --all\``,
    );
  }
  return level;
}

function libraryPath(level: InstructionSet): string {
  return join(LIBRARY_FOLDER, `libmistral_cpu.${level}.${process.platform === "darwin" ? "dylib" : "so"}`);
}

function load(level: InstructionSet): KernelLibrary {
  const path = libraryPath(level);
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
  return { functions, instructionSet: level, threadsMax: info.getUint32(12, true) };
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
