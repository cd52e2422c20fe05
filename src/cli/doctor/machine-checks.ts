/** What only shows when it is tried: whether the kernels load and this process may open enough connections. */

import { readFileSync } from "node:fs";
import { Device } from "../../backend/device.ts";
import { chooseDevice } from "../../backend/device-choice.ts";
import { MistralError } from "../../errors.ts";
import { formatBytes } from "../units.ts";
import type { DoctorReport } from "./report.ts";

type Check = DoctorReport["checks"][number];

/** A server holds a file per connection. */
const OPEN_FILES_MIN = 4096;

export function machineChecks(): Check[] {
  const files = openFiles();
  return [kernelsLoad(), cudaDevices(), ...(files === undefined ? [] : [files])];
}

function kernelsLoad(): Check {
  const name = "kernels_load";
  try {
    const device = Device.open({ kind: "cpu", threads: 1 });
    const { instructionSet } = device.info;
    device.close();
    return { name, status: "ok", message: `The kernels load and run (${instructionSet}).` };
  } catch (error) {
    if (!(error instanceof MistralError)) throw error;
    const suggestion = "Build the kernels with `bun run build`.";
    return { name, status: "error", message: `The kernels do not load: ${error.message}`, suggestion };
  }
}

/** Opens every device, as a model would. */
function cudaDevices(): Check {
  const name = "cuda_devices";
  const { cuda, reason } = chooseDevice("auto");
  if (cuda === undefined) {
    return reason === undefined
      ? { name, status: "ok", message: "There is no CUDA device; the processor computes." }
      : { name, status: "warn", message: `CUDA is not used: ${reason}.` };
  }
  try {
    const devices = Array.from({ length: Device.cudaCount() }, (_, index) => {
      const device = Device.open({ kind: "cuda", index });
      const { free, total } = device.memory();
      const library = device.productLibrary();
      device.close();
      return {
        text: `cuda:${index} (${device.info.name}) has ${formatBytes(free)} free of ${formatBytes(total)}`,
        products: library.used ? `${library.text} is used` : `cuBLASLt is not used (${library.text})`,
      };
    });
    const message = `CUDA can be used: ${devices.map(({ text }) => text).join(", ")}. In products of many rows ${devices[0]?.products}.`;
    return { name, status: "ok", message };
  } catch (error) {
    if (!(error instanceof MistralError)) throw error;
    const suggestion = "See what `nvidia-smi` says of the device, or compute with --device cpu.";
    return { name, status: "error", message: `A CUDA device fails: ${error.message}`, suggestion };
  }
}

/** Undefined where the system does not tell. */
function openFiles(): Check | undefined {
  const name = "open_files";
  let limits: string;
  try {
    limits = readFileSync("/proc/self/limits", "utf8");
  } catch {
    return undefined;
  }
  const limit = /^Max open files\s+(\d+|unlimited)/m.exec(limits)?.[1];
  if (limit === undefined) return undefined;
  if (limit === "unlimited" || Number(limit) >= OPEN_FILES_MIN) {
    return { name, status: "ok", message: `This process may open ${limit} files and connections.` };
  }
  return {
    name,
    status: "warn",
    message: `This process may open only ${limit} files and connections.`,
    suggestion: `Raise the limit before the start: ulimit -n ${OPEN_FILES_MIN}.`,
  };
}
