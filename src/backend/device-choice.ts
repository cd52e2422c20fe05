/**
 * Which device computes: what `--device` asks for, held against what this machine has. Where nothing is asked for it
 * is the first CUDA device that the kernels run on, else the processor. What was asked for by name is used or is an
 * error that says what is missing; it is never replaced by another.
 */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { DEVICE_PATTERN, DEVICE_WORDS } from "../config/device-names.ts";
import { MistralError } from "../errors.ts";
import { hasCudaDriver } from "./cuda-driver.ts";
import { cudaFunctions } from "./cuda-functions.ts";
import { Device } from "./device.ts";
import type { DeviceInfo, DeviceMemory } from "./device-info.ts";
import { cudaLibraryPath, isCudaBuilt } from "./library.ts";

/** Plain data: it crosses to engine processes. */
export type DeviceChoice = { readonly kind: "cpu" } | { readonly kind: "cuda"; readonly index: number };

export interface ChosenDevice {
  readonly choice: DeviceChoice;
  /** Of a CUDA device; nothing of its memory is called free. */
  readonly cuda?: { readonly info: DeviceInfo; readonly memory: DeviceMemory };
  /** Why CUDA is not used, where this machine lets one expect it. */
  readonly reason?: string;
}

/**
 * Finds the device that `wanted` (`DEVICE_PATTERN`) names.
 * @throws MistralError `invalid_configuration` when there is no such device; it says why.
 */
export function chooseDevice(wanted: string): ChosenDevice {
  if (!DEVICE_PATTERN.test(wanted)) {
    throw refused(`${JSON.stringify(wanted)} is no device; allowed: ${DEVICE_WORDS}`);
  }
  if (wanted === "cpu") return { choice: { kind: "cpu" } };
  if (wanted === "metal") {
    throw refused("there are no Metal kernels in this build; --device cpu computes on the processor");
  }
  if (wanted !== "auto") return cudaDevice(Number(wanted.slice("cuda:".length)));
  try {
    return cudaDevice(0);
  } catch (error) {
    if (!(error instanceof MistralError)) throw error;
    const isExpected = hasCudaDriver() || hasNvidiaDevice();
    return { choice: { kind: "cpu" }, ...(isExpected ? { reason: error.message } : {}) };
  }
}

/** How a device is named in logs: `cuda:0`. */
export function deviceLabel(choice: DeviceChoice): string {
  return choice.kind === "cpu" ? "cpu" : `cuda:${choice.index}`;
}

function cudaDevice(index: number): ChosenDevice {
  if (!isCudaBuilt()) {
    const isThere = hasCudaDriver();
    throw refused(
      process.platform !== "linux"
        ? `CUDA is built for Linux alone, and this is ${process.platform}`
        : `the CUDA kernels are not built (there is no ${cudaLibraryPath()})${isThere ? "" : ", and no CUDA driver (libcuda.so.1) is found"}; \`bun run build --all\` builds them`,
    );
  }
  let count: number;
  try {
    count = Device.cudaCount();
  } catch (cause) {
    throw refused(cause instanceof Error ? cause.message : String(cause), cause);
  }
  if (count === 0) {
    const hidden = process.env.CUDA_VISIBLE_DEVICES;
    const hint = hidden === undefined ? "" : ` (CUDA_VISIBLE_DEVICES is ${JSON.stringify(hidden)})`;
    throw refused(`CUDA cannot be used: the driver shows no device${hint}`);
  }
  if (index >= count) {
    throw refused(
      `CUDA device ${index} does not exist; ${count === 1 ? "only 0 does" : `0 to ${count - 1} do`}`,
    );
  }
  const cuda = Device.describeCuda(index);
  const capability = Number(cuda.info.instructionSet.slice("sm_".length));
  const least = cudaFunctions().mistral_cuda_capability_min();
  if (capability < least) {
    const dotted = (value: number): string => `${Math.floor(value / 10)}.${value % 10}`;
    throw refused(
      `CUDA device ${index} (${cuda.info.name}) has compute capability ${dotted(capability)}; the kernels were built for ${dotted(least)} and above`,
    );
  }
  return { choice: { kind: "cuda", index }, cuda };
}

function refused(message: string, cause?: unknown): MistralError {
  return new MistralError("invalid_configuration", message, {
    parameter: "--device",
    ...(cause === undefined ? {} : { cause }),
  });
}

const PCI_FOLDER = "/sys/bus/pci/devices";
const NVIDIA = "0x10de";
/** VGA and 3D controllers. */
const DISPLAY_CLASS = "0x03";

/** Whether a graphics processor of NVIDIA is plugged in, whatever software there is for it. */
function hasNvidiaDevice(): boolean {
  if (!existsSync(PCI_FOLDER)) return false;
  const read = (device: string, file: string): string => {
    try {
      return readFileSync(join(PCI_FOLDER, device, file), "utf8");
    } catch {
      return "";
    }
  };
  return readdirSync(PCI_FOLDER).some(
    (device) => read(device, "vendor").startsWith(NVIDIA) && read(device, "class").startsWith(DISPLAY_CLASS),
  );
}
