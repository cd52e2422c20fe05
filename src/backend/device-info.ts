/** What a device is, as the native struct tells it (`DeviceInfo` of `kernels/abi/interface.zig`). */

import { ptr } from "bun:ffi";
import { check, type DeviceKind, type KernelLibrary } from "./library.ts";

export interface DeviceInfo {
  readonly kind: DeviceKind;
  readonly index: number;
  /** Of a GPU the model's name, of a CPU its instruction set. */
  readonly name: string;
  /** Threads that compute; 0 on a GPU. */
  readonly threads: number;
  /** Instruction-set level of a CPU; `sm_80` and so on of a GPU. */
  readonly instructionSet: string;
  /** Multiprocessors of a GPU. */
  readonly multiprocessors: number;
  /** The device has no memory of its own. */
  readonly integrated: boolean;
}

/** Bytes of a device's own memory. */
export interface DeviceMemory {
  readonly free: number;
  readonly total: number;
}

const BYTES = 168;

/** Lets `fill` write the struct, and reads it. */
export function readDeviceInfo(
  { functions }: KernelLibrary,
  kind: DeviceKind,
  index: number,
  fill: (out: ReturnType<typeof ptr>) => number,
): { readonly info: DeviceInfo; readonly memory: DeviceMemory } {
  const view = new DataView(new ArrayBuffer(BYTES));
  view.setUint32(0, BYTES, true);
  check(functions, fill(ptr(view.buffer)));
  const capability = view.getUint32(4, true);
  const units = view.getUint32(8, true);
  const name = new TextDecoder().decode(new Uint8Array(view.buffer, 40, view.getUint32(32, true)));
  return {
    info: {
      kind,
      index,
      name,
      threads: kind === "cpu" ? units : 0,
      instructionSet: kind === "cpu" ? name : `sm_${capability}`,
      multiprocessors: kind === "cpu" ? 0 : units,
      integrated: view.getUint32(12, true) === 1,
    },
    memory: { free: Number(view.getBigUint64(16, true)), total: Number(view.getBigUint64(24, true)) },
  };
}
