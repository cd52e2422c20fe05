/** From a path to a model that runs: reads headers, maps or uploads weights, records the program, gives it to a device. */

import { Device } from "../backend/device.ts";
import type { DeviceChoice } from "../backend/device-choice.ts";
import type { ActivationPrecision } from "../graph/builder.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import { type LoadedWeights, loadWeights } from "../weights/load.ts";
import type { Checkpoint, TensorEntry } from "../weights/types.ts";
import { type AssembledModel, assembleModel } from "./assemble-model.ts";
import { type ModelConfig, readModelConfig } from "./config.ts";
import type { ModelFamily } from "./family.ts";
import { hostMemory } from "./host-memory.ts";
import type { CudaOptions } from "./load-on-cuda.ts";
import { LoadedModel } from "./loaded-model.ts";
import { type RecordedModel, recordModel } from "./record-model.ts";
import { familyOf } from "./registry.ts";
import type { StepLimits } from "./step.ts";
import { type LimitOptions, planLimits } from "./step-limits.ts";
import { type Repack, wantsRepack, weightBytesOf } from "./weight-memory.ts";

export interface ModelLoadOptions extends LimitOptions, CudaOptions {
  /** A GGUF file, or a folder with config.json and safetensors. */
  readonly path: string;
  /** Where to compute; on the processor when not given. */
  readonly device?: DeviceChoice | undefined;
  /** Of the processor. */
  readonly threads: number;
  /** Processors that threads are pinned to; not pinned when not given. */
  readonly processors?: readonly number[] | undefined;
  /** Rounds that a waiting thread spins before it sleeps; a short time when not given. */
  readonly spinRounds?: number | undefined;
  /** Map the weight files instead of reading them, on the processor. */
  readonly mmap: boolean;
  /** The kernel library to use; the best one for the processor when not given. */
  readonly instructionSet?: string | undefined;
  /**
   * Copy weights that have one into a layout that multiplies several times faster. "auto", the default, does
   * it when the copy takes no more than half of the memory that is free. Of the processor.
   */
  readonly repack?: Repack | undefined;
  /** How exactly matrix products take their activations; "precise" when not given. */
  readonly activations?: ActivationPrecision | undefined;
  /** Bytes of all weight files together. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

/** What is known of a model from its headers. */
export interface OpenedModel {
  readonly checkpoint: Checkpoint;
  readonly family: ModelFamily;
  readonly config: ModelConfig;
}

/** A model on its device. */
export interface PlacedModel {
  readonly limits: StepLimits;
  readonly recorded: RecordedModel;
  readonly weights: LoadedWeights;
  readonly assembled: AssembledModel;
  readonly repacked: boolean;
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
  const opened = { checkpoint, family, config };
  const choice = options.device ?? { kind: "cpu" };
  // What the memory does not hold is refused before a device is opened.
  const onCpu = choice.kind === "cpu" ? recordForCpu(opened, options) : undefined;
  const { threads, processors, spinRounds, instructionSet } = options;
  const device = Device.open(
    choice.kind === "cuda"
      ? choice
      : {
          kind: "cpu",
          threads,
          processors,
          spinRounds,
          ...(instructionSet === undefined ? {} : { instructionSet }),
        },
  );
  try {
    const placed =
      onCpu === undefined
        ? (await import("./load-on-cuda.ts")).placeOnCuda(device, opened, options)
        : placeOnCpu(device, opened, options, onCpu);
    const { limits, recorded, weights, assembled, repacked } = placed;
    const { info } = device;
    return new LoadedModel({
      device,
      weights: weights.buffers,
      assembled,
      limits,
      recorded,
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
        constantBytes: recorded.constants.bytes,
        kvBytes: recorded.kvBytes,
        kvCacheType: options.kvCacheType,
        activationBytes: recorded.program.plan.bytes,
        workspaceBytes: assembled.program.workspaceBytes,
        repacked,
        activations: options.activations ?? "precise",
        mapSeconds: weights.seconds,
        loadSeconds: (performance.now() - start) / 1000,
        threads: info.threads,
        instructionSet: info.instructionSet,
        ...(info.kind === "cpu" ? {} : { device: cudaText(device, options) }),
      },
    });
  } catch (error) {
    device.close();
    throw error;
  }
}

/** A GPU's name and number, and what computes its products. */
function cudaText(device: Device, { deterministic = false }: ModelLoadOptions): string {
  const { name, kind, index } = device.info;
  const library = deterministic ? undefined : device.productLibrary();
  return `${name} (${kind}:${index}), products by ${library?.used === true ? library.text : "its own kernels"}`;
}

type Recorded = Pick<PlacedModel, "limits" | "recorded">;

function recordForCpu(opened: OpenedModel, options: ModelLoadOptions): Recorded {
  const { kvCacheType, activations } = options;
  const limits = planLimits(opened.config, options, hostMemory(), weightBytesOf(opened.checkpoint));
  // Where a block is a whole context, little of it is in use for long: pages that follow the use are better then.
  const cacheLayout = options.pagedAttention === false ? "by layer" : "by block";
  return { limits, recorded: recordModel({ ...opened, limits, kvCacheType, activations, cacheLayout }) };
}

function placeOnCpu(
  device: Device,
  { checkpoint }: OpenedModel,
  { mmap, onProgress, repack }: ModelLoadOptions,
  { limits, recorded }: Recorded,
): PlacedModel {
  const weights = loadWeights(device, checkpoint, {
    mmap,
    ...(onProgress === undefined ? {} : { onProgress }),
  });
  try {
    const readTensor = ({ file, offset, bytes }: TensorEntry): Uint8Array =>
      weights.buffers[file]!.u8(offset, bytes);
    const repacked = wantsRepack(repack ?? "auto", recorded.weightBytes);
    const parts = { device, recorded, limits, weights: weights.buffers, readTensor, repack: repacked };
    return { limits, recorded, weights, assembled: assembleModel(parts), repacked };
  } catch (error) {
    for (const buffer of weights.buffers) buffer.free();
    throw error;
  }
}
