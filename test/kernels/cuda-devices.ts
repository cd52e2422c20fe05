/**
 * Opens CUDA devices for the kernel tests: a GPU where there is one, else the emulated ones, of which the first runs
 * the threads and blocks of a kernel in rising and the second in falling order, so that a result that no barrier
 * makes certain differs between them. `MISTRALRS_CUDA_DRIVER` names another driver.
 */

import { dlopen, FFIType, ptr } from "bun:ffi";
import { Device } from "../../src/backend/device.ts";
import { emulatedCudaDriver, isCudaBuilt } from "../../src/backend/library.ts";

export interface CudaLevel {
  readonly level: "cuda" | "cuda emulated";
  readonly devices: readonly [Device, Device];
}

const DRIVER = "MISTRALRS_CUDA_DRIVER";

/** Sets a variable where native code looks: the runtime keeps its own copy of the environment. */
function setNativeVariable(name: string, value: string): void {
  const { symbols } = dlopen("libc.so.6", {
    setenv: { args: [FFIType.ptr, FFIType.ptr, FFIType.i32], returns: FFIType.i32 },
  });
  const text = (value: string) => ptr(new TextEncoder().encode(`${value}\0`));
  if (symbols.setenv(text(name), text(value), 1) !== 0) throw new Error(`cannot set ${name}`);
}

function hasDevice(): boolean {
  try {
    return Device.cudaCount() > 0;
  } catch {
    return false;
  }
}

const PRODUCTS = "MISTRALRS_CUDA_CUBLASLT";

/**
 * Devices that are first asked for products in here find cuBLASLt: NVIDIA's beside a GPU, else the emulated one, which
 * is in the emulated driver's file.
 */
export async function withProductLibrary<T>({ level }: CudaLevel, use: () => T | Promise<T>): Promise<T> {
  const path = level === "cuda emulated" ? emulatedCudaDriver() : undefined;
  if (path === undefined) return await use();
  setNativeVariable(PRODUCTS, path);
  try {
    return await use();
  } finally {
    setNativeVariable(PRODUCTS, "");
  }
}

/** The devices of the level, opened again with cuBLASLt. */
export function openWithProductLibrary(level: CudaLevel): Promise<[Device, Device]> {
  return withProductLibrary(level, () => {
    const devices = level.devices.map(({ info }) => Device.open({ kind: "cuda", index: info.index }));
    for (const device of devices)
      if (!device.productLibrary().used) throw new Error(device.productLibrary().text);
    return devices as [Device, Device];
  });
}

/** One level, or none where the CUDA library is not built. */
export function openCudaLevels(): CudaLevel[] {
  if (!isCudaBuilt()) return [];
  if (!hasDevice()) {
    const driver = emulatedCudaDriver();
    if (driver === undefined || process.env[DRIVER] !== undefined) return [];
    setNativeVariable(DRIVER, driver);
  }
  const first = Device.open({ kind: "cuda", index: 0 });
  const emulated = first.info.name.startsWith("emulated");
  const second = Device.open({ kind: "cuda", index: emulated ? 1 : 0 });
  return [{ level: emulated ? "cuda emulated" : "cuda", devices: [first, second] }];
}
