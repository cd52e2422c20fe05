/** A model on a device: runs steps, and owns everything that has to be given back. */

import type { StageTime } from "../backend/cpu-profile.ts";
import type { Buffer, Device } from "../backend/device.ts";
import type { GraphTotals } from "../backend/program.ts";
import type { ActivationPrecision, RecordedOp } from "../graph/builder.ts";
import { type AssembledModel, freeAssembled } from "./assemble-model.ts";
import type { RecordedModel } from "./record-model.ts";
import type { ModelRunner, StepInputs, StepLimits, StepOutputs } from "./step.ts";
import type { KvCacheType } from "./step-limits.ts";

export interface ModelInfo {
  readonly family: string;
  /** As the file names it. */
  readonly architecture: string;
  readonly layers: number;
  /** Tokens of a sequence that are served; may be below what the model was made for (see `planLimits`). */
  readonly contextLength: number;
  /** What the model was made for. */
  readonly modelContextLength: number;
  readonly vocabularySize: number;
  /** The tokens that end a text, as the model's configuration says. */
  readonly endOfTextIds: readonly number[];
  /** Bytes of the weights that a step reads. */
  readonly weightBytes: number;
  /** Bytes of the files that are mapped rather than read; 0 without mmap. */
  readonly mappedBytes: number;
  /** Bytes of converted vectors and tables in memory of our own. */
  readonly constantBytes: number;
  /** Bytes of the KV pool; touched as it fills. */
  readonly kvBytes: number;
  readonly kvCacheType: KvCacheType;
  /** Bytes of the activation arena, at the largest step. */
  readonly activationBytes: number;
  /** Bytes that the kernels need besides. */
  readonly workspaceBytes: number;
  /** Whether the program works on a re-laid copy of weights; it is part of `workspaceBytes`. */
  readonly repacked: boolean;
  readonly activations: ActivationPrecision;
  /** Seconds to map or read the weight files. */
  readonly mapSeconds: number;
  /** Seconds of the whole load, `mapSeconds` included. */
  readonly loadSeconds: number;
  /** 0 on a GPU. */
  readonly threads: number;
  /** Of a GPU its compute capability, such as `sm_90`. */
  readonly instructionSet: string;
  /** A GPU's name and number; absent on the CPU. */
  readonly device?: string;
}

interface LoadedModelParts {
  readonly device: Device;
  readonly weights: readonly Buffer[];
  readonly assembled: AssembledModel;
  readonly limits: StepLimits;
  readonly recorded: RecordedModel;
  readonly info: ModelInfo;
}

export interface ProfiledStage extends StageTime {
  readonly ops: readonly RecordedOp[];
}

export class LoadedModel implements ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  readonly info: ModelInfo;
  readonly #parts: LoadedModelParts;
  readonly #dims: [number, number, number] = [0, 0, 0];
  #isClosed = false;

  constructor(parts: LoadedModelParts) {
    const { outputs, hidden } = parts.assembled;
    this.limits = parts.limits;
    this.inputs = parts.assembled.inputs;
    this.outputs = {
      ...outputs,
      get hidden() {
        return hidden.values;
      },
    };
    this.info = parts.info;
    this.#parts = parts;
  }

  run(tokens: number, sequences: number, rows: number): void {
    this.#dims[0] = tokens;
    this.#dims[1] = sequences;
    this.#dims[2] = rows;
    const { program, hidden, logits } = this.#parts.assembled;
    program.run(this.#dims);
    hidden.computed(rows);
    logits.computed(rows);
  }

  /**
   * The logits of the last step, `[rows, vocabularySize]`: a view that the next step overwrites. Where a row had
   * sampling adjustments, they are in it.
   */
  logits(rows: number): Float32Array {
    return this.#parts.assembled.logits.values.subarray(0, rows * this.limits.vocabularySize);
  }

  /** What became of the decode steps that were to be CUDA graphs; undefined on the CPU. */
  get graphTotals(): GraphTotals | undefined {
    const { device, assembled } = this.#parts;
    return device.info.kind === "cuda" ? assembled.program.graphTotals() : undefined;
  }

  /** Measures the stages of the steps from now on. Of the processor. */
  startProfile(): void {
    this.#parts.assembled.program.startProfile();
  }

  /** The stages of the steps since, each with its ops. */
  profile(): ProfiledStage[] {
    const { ops } = this.#parts.recorded.program;
    return this.#parts.assembled.program
      .profile()
      .map((time) => ({ ...time, ops: ops.slice(time.firstOp, time.lastOp + 1) }));
  }

  /** The plan of the activation memory, for `formatMemoryPlan`. */
  get memoryPlan(): RecordedModel["program"]["plan"] {
    return this.#parts.recorded.program.plan;
  }

  /** Gives everything back; the typed arrays are invalid from here on. Closing twice does nothing. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    const { assembled, weights, device } = this.#parts;
    freeAssembled(assembled);
    for (const buffer of weights) buffer.free();
    device.close();
  }
}
