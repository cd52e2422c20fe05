/** Where a model will lie in this machine's memory, from the headers of its files alone, before anything is loaded. */

import type { DType } from "../backend/dtype.ts";
import { hasFasterLayout } from "../backend/faster-layout.ts";
import { availableLevels } from "../backend/library.ts";
import { MistralError } from "../errors.ts";
import { type ModelConfig, readModelConfig } from "../models/config.ts";
import { type HostMemory, hostMemory } from "../models/host-memory.ts";
import { familyOf } from "../models/registry.ts";
import type { StepLimits } from "../models/step.ts";
import { kvTokenBytes, planLimits } from "../models/step-limits.ts";
import { wantsRepack, weightBytesOf } from "../models/weight-memory.ts";
import type { Checkpoint } from "../weights/types.ts";
import { estimateWeightBytes, mainType } from "./quantised-size.ts";
import type { LoaderOptions } from "./runner-options.ts";
import { formatBytes } from "./units.ts";

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

/** Where no kernels are built, a plan is made all the same; they would be asked. */
function isRelaid(dtype: DType, instructionSet: string | undefined): boolean {
  const level = instructionSet ?? availableLevels()[0];
  return level !== undefined && hasFasterLayout(dtype, level);
}

/** The limits that loading will plan; what it throws says what would fit. */
export function limitsOf(
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
