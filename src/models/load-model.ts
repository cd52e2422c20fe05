/** From a path to a model that runs: reads headers, maps weights, records the program, gives it to a device. */

import { type Buffer, type BufferKind, Device } from "../backend/device.ts";
import type { Program } from "../backend/program.ts";
import { ARENA_SLOT } from "../graph/builder.ts";
import { rowElements } from "../graph/tensor.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import { loadWeights } from "../weights/load.ts";
import type { Checkpoint, TensorEntry } from "../weights/types.ts";
import { readModelConfig } from "./config.ts";
import { availableMemoryBytes, hostMemory } from "./host-memory.ts";
import { LoadedModel } from "./loaded-model.ts";
import { arenaOffset, recordModel } from "./record-model.ts";
import { familyOf } from "./registry.ts";
import { type LimitOptions, planLimits } from "./step-limits.ts";
import { viewStepInputs, viewStepOutputs } from "./step-memory.ts";

export type Repack = "auto" | "on" | "off";

/** Share of the free memory that an automatic copy of the weights may take. */
const REPACK_SHARE_OF_FREE_MEMORY = 0.5;

export interface ModelLoadOptions extends LimitOptions {
  /** A GGUF file, or a folder with config.json and safetensors. */
  readonly path: string;
  readonly threads: number;
  /** Map the weight files instead of reading them. */
  readonly mmap: boolean;
  /** The kernel library to use; the best one for the processor when not given. */
  readonly instructionSet?: string | undefined;
  /**
   * Copy block-quantised weights into a layout that multiplies several times faster. "auto", the default, does
   * it when the copy takes no more than half of the memory that is free.
   */
  readonly repack?: Repack | undefined;
  /** Bytes of all weight files together. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/**
 * Loads a model. Throws `model_not_found`, `invalid_model_file`, `unsupported_model`, `invalid_configuration`,
 * `insufficient_memory` or `backend`; nothing stays allocated then.
 */
export async function loadModel(options: ModelLoadOptions): Promise<LoadedModel> {
  const start = performance.now();
  const checkpoint = openCheckpoint(options.path);
  const family = familyOf(checkpoint);
  const config = readModelConfig(checkpoint, family);
  const limits = planLimits(config, options, hostMemory(), weightBytesOf(checkpoint));
  const recorded = recordModel({ checkpoint, family, config, limits, kvCacheType: options.kvCacheType });

  const { threads, instructionSet, mmap, onProgress } = options;
  const device = Device.open({
    kind: "cpu",
    threads,
    ...(instructionSet === undefined ? {} : { instructionSet }),
  });
  const buffers: Buffer[] = [];
  let program: Program | undefined;
  try {
    const { slots, program: recordedProgram, step, constants } = recorded;
    const weights = loadWeights(device, checkpoint, {
      mmap,
      ...(onProgress === undefined ? {} : { onProgress }),
    });
    weights.buffers.forEach((buffer, file) => {
      buffers[slots.files + file] = buffer;
    });
    const make = (slot: number, bytes: number, kind: BufferKind = "device"): Buffer => {
      const buffer = device.createBuffer(bytes, kind);
      buffers[slot] = buffer;
      return buffer;
    };
    make(slots.cache, recorded.kvBytes);
    const arena = make(ARENA_SLOT, recordedProgram.plan.bytes);
    const inputs = viewStepInputs(make(step.inputs.slot, step.inputs.bytes, "host"), step.inputs);
    const { hidden } = recorded;
    const outputs = {
      ...viewStepOutputs(make(step.outputs.slot, step.outputs.bytes, "host"), step.outputs),
      hidden: arena.f32(arenaOffset(recorded, hidden), limits.rowsMax * rowElements(hidden)),
    };
    const constantBuffer = make(slots.constants, constants.bytes);
    const read = ({ file, offset, bytes }: TensorEntry): Uint8Array =>
      weights.buffers[file]!.u8(offset, bytes);
    constants.fill(constantBuffer.u8(0, constants.bytes), read);
    const repack = wantsRepack(options.repack ?? "auto", recorded.weightBytes);
    program = device.createProgram(recordedProgram.words, buffers, { repack });

    return new LoadedModel({
      device,
      program,
      buffers,
      limits,
      inputs,
      outputs,
      recorded,
      arena,
      info: {
        family: family.name,
        architecture: config.architecture,
        layers: config.layers.length,
        contextLength: limits.contextLength,
        modelContextLength: config.contextLength,
        vocabularySize: config.vocabularySize,
        endOfTextIds: config.endOfTextIds,
        weightBytes: recorded.weightBytes,
        mappedBytes: weights.mappedBytes,
        constantBytes: constants.bytes,
        kvBytes: recorded.kvBytes,
        kvCacheType: options.kvCacheType,
        activationBytes: recordedProgram.plan.bytes,
        workspaceBytes: program.workspaceBytes,
        repacked: repack,
        mapSeconds: weights.seconds,
        loadSeconds: (performance.now() - start) / 1000,
        threads: device.info.threads,
        instructionSet: device.info.instructionSet,
      },
    });
  } catch (error) {
    program?.free();
    for (const buffer of buffers) buffer?.free();
    device.close();
    throw error;
  }
}

/** Bytes of all tensors of a checkpoint. */
export function weightBytesOf({ tensors }: Checkpoint): number {
  let total = 0;
  for (const { bytes } of tensors.values()) total += bytes;
  return total;
}

/** Whether a model with so many bytes of weights gets a copy of them in the faster layout. */
export function wantsRepack(
  repack: Repack,
  weightBytes: number,
  availableBytes: number = availableMemoryBytes(),
): boolean {
  if (repack !== "auto") return repack === "on";
  return weightBytes <= availableBytes * REPACK_SHARE_OF_FREE_MEMORY;
}
