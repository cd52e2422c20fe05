/** The device that the settings ask for, and one line in the log when it is not the one that could be expected. */

import { type ChosenDevice, chooseDevice } from "../backend/device-choice.ts";
import type { Settings } from "../config/settings.ts";
import { cudaMemory } from "../models/cuda-memory.ts";
import type { HostMemory } from "../models/host-memory.ts";
import type { Log } from "./log.ts";

/** Of several models each asks; the reason is told once. */
let toldReason: string | undefined;

/** Finds the device. Throws MistralError `invalid_configuration` when one was named that is not there. */
export function computeDevice({ cpu, device }: Settings, log: Log): ChosenDevice {
  const chosen = chooseDevice(cpu ? "cpu" : device);
  if (chosen.reason !== undefined && chosen.reason !== toldReason) {
    toldReason = chosen.reason;
    log.write("info", `CUDA is not used, the processor computes: ${chosen.reason}`);
  }
  return chosen;
}

/**
 * What a model can have of a CUDA device at most: what others use of it shows when it is opened. Undefined for the
 * processor.
 */
export function deviceMemory(
  { cuda }: ChosenDevice,
  { integratedMemoryFraction }: Settings,
): HostMemory | undefined {
  if (cuda === undefined) return undefined;
  const { total } = cuda.memory;
  return cudaMemory({ free: total, total }, cuda.info.integrated, integratedMemoryFraction);
}
