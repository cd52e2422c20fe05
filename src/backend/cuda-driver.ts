/**
 * Whether this machine has a CUDA driver, so that building the CUDA kernels is worth the time. Imports nothing
 * outside the runtime, so that set-up can use it.
 */

import { dlopen } from "bun:ffi";

/** Where the driver lies; tests put an emulated one in its place (`kernels/README.md`). */
const DRIVER = "libcuda.so.1";

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
