/**
 * A model on a CUDA device: its weights are uploaded, what a step needs is measured, and the KV cache gets what is
 * then left of the device's memory, as far as it is allowed to.
 */

import type { Device } from "../backend/device.ts";
import { MistralError } from "../errors.ts";
import { readTensor, tensorRegions, uploadWeights } from "../weights/upload.ts";
import { type AssembledModel, assembleModel, freeAssembled } from "./assemble-model.ts";
import { cudaMemory } from "./cuda-memory.ts";
import type { HostMemory } from "./host-memory.ts";
import type { ModelLoadOptions, OpenedModel, PlacedModel } from "./load-model.ts";
import { type RecordedModel, recordModel } from "./record-model.ts";
import type { StepLimits } from "./step.ts";
import { committedMargin, gigabytes, planLimits } from "./step-limits.ts";

export interface CudaOptions {
  /** Share of the system's memory that a device without memory of its own may use; 0.75 when not given. */
  readonly integratedMemoryFraction?: number | undefined;
  /** Bytes that captured decode steps may take; 0 captures none, 4 % of the device's memory when not given. */
  readonly graphBudgetBytes?: number | undefined;
  /** Whether a sequence's bits may depend on nothing but the sequence, at the price of slower products. */
  readonly deterministic?: boolean | undefined;
}

const GRAPH_SHARE_OF_MEMORY = 0.04;

/**
 * Places a model on an open device. Throws `insufficient_memory` with what is needed, what is free and what would
 * fit, or what reading files and the device throw; nothing but the device stays open then.
 */
export function placeOnCuda(device: Device, opened: OpenedModel, options: ModelLoadOptions): PlacedModel {
  const { checkpoint, config } = opened;
  const { kvCacheType, activations } = options;
  const regions = tensorRegions(checkpoint);
  const weightBytes = regions.reduce((sum, { bytes }) => sum + bytes, 0);
  const record = (limits: StepLimits): RecordedModel =>
    recordModel({ ...opened, limits, kvCacheType, activations, regions });
  const planned = { ...options, isCommitted: true };

  const before = usableMemory(device, options);
  requireRoomForWeights(before, weightBytes);
  // Too much memory is counted as free here, so that the context can only become shorter.
  const probeLimits = { ...planLimits(config, planned, before, weightBytes), blockCount: 1 };
  const probeModel = record(probeLimits);
  requireRoomForSteps(before, weightBytes, probeModel);

  const weights = uploadWeights(device, checkpoint, regions, options.onProgress);
  let assembled: AssembledModel | undefined;
  try {
    const parts = {
      device,
      weights: weights.buffers,
      readTensor: (entry: Parameters<typeof readTensor>[1]) => readTensor(checkpoint, entry),
      deterministic: options.deterministic,
    };
    const probe = assembleModel({ ...parts, recorded: probeModel, limits: probeLimits });
    const { totalBytes, availableBytes } = usableMemory(device, options);
    freeAssembled(probe);
    const left = { totalBytes, availableBytes: availableBytes + probeModel.kvBytes };
    const limits = planLimits(config, planned, left);
    const recorded = record(limits);
    assembled = assembleModel({ ...parts, recorded, limits });
    const graphBudget = options.graphBudgetBytes ?? Math.floor(device.memory().total * GRAPH_SHARE_OF_MEMORY);
    if (graphBudget > 0) assembled.program.captureGraphs(graphBudget);
    return { limits, recorded, weights, assembled, repacked: false };
  } catch (error) {
    if (assembled !== undefined) freeAssembled(assembled);
    for (const buffer of weights.buffers) buffer.free();
    throw error;
  }
}

/** What a model may count on: the device's memory, or its share of the system's where it has none of its own. */
function usableMemory(device: Device, { integratedMemoryFraction }: CudaOptions): HostMemory {
  return cudaMemory(device.memory(), device.info.integrated, integratedMemoryFraction);
}

function requireRoomForWeights(memory: HostMemory, weightBytes: number): void {
  const needed = weightBytes + committedMargin(memory);
  if (needed <= memory.availableBytes) return;
  throw new MistralError(
    "insufficient_memory",
    `the weights need ${gigabytes(weightBytes)} and ${gigabytes(needed - weightBytes)} stay free for the driver, but the CUDA device has ${gigabytes(memory.availableBytes)} free of ${gigabytes(memory.totalBytes)}: no context fits. Take a smaller quantisation, or --device cpu`,
    { parameter: "--device" },
  );
}

function requireRoomForSteps(memory: HostMemory, weightBytes: number, recorded: RecordedModel): void {
  const { program, step, constants } = recorded;
  const stepBytes = program.plan.bytes + step.inputs.bytes + step.outputs.bytes + constants.bytes;
  const margin = committedMargin(memory);
  const needed = weightBytes + stepBytes + margin;
  if (needed <= memory.availableBytes) return;
  throw new MistralError(
    "insufficient_memory",
    `the largest step needs ${gigabytes(stepBytes)} beside ${gigabytes(weightBytes)} of weights, and ${gigabytes(margin)} stay free for the driver, but the CUDA device has ${gigabytes(memory.availableBytes)} free of ${gigabytes(memory.totalBytes)}. Lower --max-num-batched-tokens or --max-seqs`,
    { parameter: "--max-num-batched-tokens" },
  );
}
