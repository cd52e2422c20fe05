/**
 * What a family of models is to the rest: how it appears in files, which tensors it needs, and how it records
 * its program. One file per family, one row each in `registry.ts`.
 */

import type { ProgramBuilder } from "../graph/builder.ts";
import type { LayerCache } from "../graph/record-attention.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ArchitectureFacts, ModelConfig, RopeKind } from "./config.ts";
import type { StepInputName } from "./step-memory.ts";
import type { LayerTensorName, ModelTensorName, NameOverrides, TensorRequirement } from "./tensor-names.ts";

export interface ModelFamily extends ArchitectureFacts {
  readonly name: string;
  /** Hugging Face names by which the family departs from the common ones. */
  readonly huggingFaceNames: NameOverrides;
  tensors(config: ModelConfig): readonly TensorRequirement[];
  /** Records everything from token ids to logits, before any sampling. */
  record(recording: ModelRecording): RecordedRows;
}

/** What a family computes for the rows that were asked for; both outlast the last op. */
export interface RecordedRows {
  /** f32 `[rows, width]`: the hidden state after the last norm, which embeddings are made of. */
  readonly hidden: Tensor;
  /** f32 `[rows, vocab]` */
  readonly logits: Tensor;
}

/** What a family records with. */
export interface ModelRecording {
  readonly program: ProgramBuilder;
  readonly config: ModelConfig;
  readonly inputs: Readonly<Record<StepInputName, Tensor>>;
  /** By layer. */
  readonly caches: readonly LayerCache[];
  weight(name: ModelTensorName): Tensor;
  layerWeight(layer: number, name: LayerTensorName): Tensor;
  rotation(kind: RopeKind): { readonly inverseFrequencies: Tensor; readonly attentionFactor: number };
}
