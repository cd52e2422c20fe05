/**
 * All that a model will take of the memory, activations included, for which its program is recorded: tens of
 * milliseconds that only those pay who want to know.
 */

import { readModelConfig } from "../models/config.ts";
import { type HostMemory, hostMemory } from "../models/host-memory.ts";
import { recordModel } from "../models/record-model.ts";
import { familyOf } from "../models/registry.ts";
import type { Checkpoint } from "../weights/types.ts";
import { limitsOf, type Placement, placeModel } from "./memory-plan.ts";
import type { LoaderOptions } from "./runner-options.ts";
import { formatBytes, formatCount } from "./units.ts";

export interface MemoryPlan extends Placement {
  /** Bytes of a step's intermediate values, tables and inputs. */
  readonly activationBytes: number;
  /** What is left when the KV cache is full; negative when it does not fit. */
  readonly leftBytes: number;
}

/** The whole plan: records the model's program to know what a step needs besides. Throws as `placeModel` does. */
export function planMemory(
  checkpoint: Checkpoint,
  options: LoaderOptions,
  memory: HostMemory = hostMemory(),
): MemoryPlan {
  const placement = placeModel(checkpoint, options, memory);
  const family = familyOf(checkpoint);
  const config = readModelConfig(checkpoint, family);
  const limits = limitsOf(checkpoint, config, options, memory);
  const { constants, program, step } = recordModel({
    checkpoint,
    family,
    config,
    limits,
    kvCacheType: options.kvCacheType,
  });
  const activationBytes = program.plan.bytes + constants.bytes + step.inputs.bytes + step.outputs.bytes;
  const { weightBytes, kvBytes, availableBytes } = placement;
  return {
    ...placement,
    activationBytes,
    leftBytes: availableBytes - weightBytes - kvBytes - activationBytes,
  };
}

/** Rows of name and value for the log. */
export function describeMemory(plan: MemoryPlan, name: string): readonly (readonly [string, string])[] {
  const { kvTokens, contextLength, sequencesMax, leftBytes } = plan;
  const layout = plan.isUploaded
    ? "copied to the device"
    : plan.isRepacked
      ? "copied into the faster layout"
      : plan.isMapped
        ? "mapped"
        : "read";
  const sequences = Math.min(sequencesMax, Math.floor(kvTokens / contextLength));
  const room = sequences < 1 ? "" : `, ${sequences} at the full context of ${formatCount(contextLength)}`;
  const left = leftBytes < 0 ? `${formatBytes(-leftBytes)} MISSING` : `${formatBytes(leftBytes)} left`;
  return [
    ["memory plan", `${name} (${plan.architecture}), ${formatCount(contextLength)} tokens of context`],
    ["weights", `${formatBytes(plan.weightBytes)}, ${layout}`],
    [
      "kv cache",
      `${formatBytes(plan.kvBytes)} for ${formatCount(kvTokens)} tokens${room}; ${plan.isUploaded ? "taken at once" : "taken as it fills"}`,
    ],
    ["activations", formatBytes(plan.activationBytes)],
    [
      "left",
      `${formatBytes(plan.availableBytes)} ${plan.isUploaded ? "on the device" : "free"}, ${left} with a full cache`,
    ],
  ];
}
