/**
 * Whether this machine has a CUDA driver, so that building the CUDA kernels is worth the time. Imports nothing
 * outside the runtime, so that set-up can use it.
 */

import { dlopen } from "bun:ffi";
import { basename } from "node:path";

/** Where the driver lies; tests put an emulated one in its place (`kernels/README.md`). */
const DRIVER = "libcuda.so.1";

/** The driver that runs kernels on the processor, for tests. */
export const EMULATED_DRIVER = "libmistral_cuda_emulated.so";

/** Whether the driver that is asked for is the emulated one. */
export function isCudaEmulated(): boolean {
  return basename(process.env.MISTRALRS_CUDA_DRIVER ?? "") === EMULATED_DRIVER;
}

/** Whether the driver library can be opened. It says nothing of devices. */
export function hasCudaDriver(): boolean {
  if (process.platform !== "linux") return false;
  try {
    dlopen(process.env.MISTRALRS_CUDA_DRIVER || DRIVER, {
      cuDriverGetVersion: { args: ["ptr"], returns: "i32" },
    }).close();
    return true;
  } catch {
    return false;
  }
}
