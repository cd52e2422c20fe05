/** How the threads of a CPU device run: on which processors, and how patiently they wait. */

import { FFIType, ptr } from "bun:ffi";
import { MistralError } from "../errors.ts";
import { furtherFunctions } from "./further-functions.ts";
import { type CpuLibrary, check, cpuLibraryPath } from "./library.ts";

export interface CpuThreadOptions {
  /**
   * Processors, by the system's numbers, that the threads are pinned to, by turns: of the first thread, the first and
   * as many further as there are more processors than threads. Linux alone can do it. The calling thread is pinned
   * while it computes and confined to the whole list until the device is closed, and so is what it starts.
   */
  readonly processors?: readonly number[] | undefined;
  /** Rounds that a waiting thread spins before it sleeps, 0 for none; a short time when not given. */
  readonly spinRounds?: number | undefined;
}

const { i32, u32, u64_fast, ptr: pointer } = FFIType;
const functionsOf = furtherFunctions({
  mistral_cpu_pin: { args: [u64_fast, pointer, u64_fast], returns: i32 },
  mistral_cpu_spin: { args: [u64_fast, u32], returns: i32 },
} as const);

/** @throws MistralError `invalid_configuration` naming a processor that cannot be had, `backend` when the library is too old. */
export function arrangeThreads(
  library: CpuLibrary,
  device: number,
  { processors, spinRounds }: CpuThreadOptions,
): void {
  if (processors !== undefined) {
    const list = checkedList(processors);
    const status = functionsOf(cpuLibraryPath(library.instructionSet)).mistral_cpu_pin(
      device,
      ptr(list),
      list.length,
    );
    explain(() => check(library.functions, status));
  }
  if (spinRounds !== undefined) {
    check(
      library.functions,
      functionsOf(cpuLibraryPath(library.instructionSet)).mistral_cpu_spin(device, spinRounds),
    );
  }
}

function checkedList(processors: readonly number[]): Uint32Array {
  const wrong = processors.find((processor) => !Number.isInteger(processor) || processor < 0);
  if (wrong !== undefined || processors.length === 0) {
    throw refused(wrong === undefined ? "a list of no processors" : `${wrong} is no number of a processor`);
  }
  return Uint32Array.from(processors);
}

function explain(act: () => void): void {
  try {
    act();
  } catch (error) {
    throw error instanceof MistralError ? refused(error.message) : error;
  }
}

function refused(message: string): MistralError {
  return new MistralError("invalid_configuration", `${message} (CANDLE_CPU_MASK)`, {
    parameter: "processors",
  });
}
