/** What a model will take of this machine's memory, from the headers of its files alone, before anything is loaded. */

import type { DType } from "../backend/dtype.ts";
import { hasFasterLayout } from "../backend/faster-layout.ts";
import { availableLevels } from "../backend/library.ts";
import { MistralError } from "../errors.ts";
import { type ModelConfig, readModelConfig } from "../models/config.ts";
import { type HostMemory, hostMemory } from "../models/host-memory.ts";
import { wantsRepack, weightBytesOf } from "../models/load-model.ts";
import { recordModel } from "../models/record-model.ts";
import { familyOf } from "../models/registry.ts";
import type { StepLimits } from "../models/step.ts";
import { kvTokenBytes, planLimits } from "../models/step-limits.ts";
import type { Checkpoint } from "../weights/types.ts";
import { estimateWeightBytes, mainType } from "./quantised-size.ts";
import type { LoaderOptions } from "./runner-options.ts";
import { formatBytes, formatCount } from "./units.ts";

/** Where weights and KV cache go; found in a few milliseconds. */
export interface Placement {
  readonly architecture: string;
  /** Tokens of a sequence that will be served. */
  readonly contextLength: number;
  readonly sequencesMax: number;
  readonly vocabularySize: number;
  /** Bytes of the weights in their files. */
  readonly weightBytes: number;
  /** Whether the weights are copied into a layout that computes faster; the files' pages may then be dropped. */
  readonly isRepacked: boolean;
  /** The weights are copied to a device with memory of its own, of which this is the plan. */
  readonly isUploaded: boolean;
  /** Whether the weights are mapped, so that the system can drop and read them again. */
  readonly isMapped: boolean;
  /** Bytes of the whole KV cache; touched as it fills. */
  readonly kvBytes: number;
  /** Tokens it holds. */
  readonly kvTokens: number;
  readonly availableBytes: number;
}

export interface MemoryPlan extends Placement {
  /** Bytes of a step's intermediate values, tables and inputs. */
  readonly activationBytes: number;
  /** What is left when the KV cache is full; negative when it does not fit. */
  readonly leftBytes: number;
}

/** Types named as what would fit, best first. */
const SMALLER_TYPES = ["q8_0", "q6_k", "q5_k", "q4_k", "q3_k", "q2_k"] as const;

/**
 * Places a model in memory. Throws what loading would throw: `insufficient_memory` when its KV cache cannot be placed,
 * with what would fit, and the errors of malformed and unknown models.
 */
export function placeModel(
  checkpoint: Checkpoint,
  options: LoaderOptions,
  memory: HostMemory = hostMemory(),
): Placement {
  const config = readModelConfig(checkpoint, familyOf(checkpoint));
  const weightBytes = weightBytesOf(checkpoint);
  const limits = limitsOf(checkpoint, config, options, memory);
  const isUploaded = options.device?.kind === "cuda";
  return {
    architecture: config.architecture,
    contextLength: limits.contextLength,
    sequencesMax: limits.sequencesMax,
    vocabularySize: config.vocabularySize,
    weightBytes,
    isRepacked:
      !isUploaded &&
      wantsRepack(options.repack ?? "auto", weightBytes, memory.availableBytes) &&
      isRelaid(mainType(checkpoint), options.instructionSet),
    isUploaded,
    isMapped: options.mmap && !isUploaded,
    kvBytes: limits.blockCount * limits.blockSize * kvTokenBytes(config, options),
    // Block 0 is never handed out.
    kvTokens: (limits.blockCount - 1) * limits.blockSize,
    availableBytes: memory.availableBytes,
  };
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

/** Where no kernels are built, a plan is made all the same; they would be asked. */
function isRelaid(dtype: DType, instructionSet: string | undefined): boolean {
  const level = instructionSet ?? availableLevels()[0];
  return level !== undefined && hasFasterLayout(dtype, level);
}

function limitsOf(
  checkpoint: Checkpoint,
  config: ModelConfig,
  options: LoaderOptions,
  memory: HostMemory,
): StepLimits {
  try {
    const isCommitted = options.device?.kind === "cuda";
    return planLimits(config, { ...options, isCommitted }, memory, weightBytesOf(checkpoint));
  } catch (error) {
    throw withWhatFits(error, checkpoint, memory);
  }
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

/**
 * Refuses a model whose weights must be held in more memory than there is. Mapped weights only get slow, which is a
 * line for the log; undefined when all is well.
 */
export function memoryWarning(placement: Placement, checkpoint: Checkpoint): string | undefined {
  const { weightBytes, availableBytes } = placement;
  if (weightBytes <= availableBytes) return undefined;
  const facts = `the weights take ${formatBytes(weightBytes)} and ${formatBytes(availableBytes)} are free`;
  const advice = whatFits(checkpoint, availableBytes);
  if (placement.isMapped && !placement.isRepacked) {
    return `${facts}: every step will read from the disk, which is slow. ${advice}`;
  }
  throw new MistralError("insufficient_memory", `${facts}. ${advice}`, { parameter: "--model-id" });
}

function withWhatFits(error: unknown, checkpoint: Checkpoint, { availableBytes }: HostMemory): unknown {
  const isAboutMemory = error instanceof MistralError && error.code === "insufficient_memory";
  if (!isAboutMemory || weightBytesOf(checkpoint) < availableBytes / 2) return error;
  return new MistralError(
    "insufficient_memory",
    `${error.message}. ${whatFits(checkpoint, availableBytes)}`,
    {
      ...(error.parameter === undefined ? {} : { parameter: error.parameter }),
      cause: error,
    },
  );
}

/** The best quantisation whose weights leave half as much again for the rest. */
function whatFits(checkpoint: Checkpoint, availableBytes: number): string {
  const stored = weightBytesOf(checkpoint);
  for (const type of SMALLER_TYPES) {
    const bytes = estimateWeightBytes(checkpoint, type);
    if (bytes < stored && bytes * 1.5 <= availableBytes) {
      return `As ${type.toUpperCase()} the weights would take about ${formatBytes(bytes)} and fit; \`tune\` shows every choice`;
    }
  }
  return "No quantisation of this model fits; take a smaller model or free memory";
}
