/** Makes a recorded model run: its buffers besides the weights, its constants, its program, views of a step. */

import type { Buffer, BufferKind, Device } from "../backend/device.ts";
import type { Program } from "../backend/program.ts";
import { ARENA_SLOT } from "../graph/builder.ts";
import { rowElements, type Tensor } from "../graph/tensor.ts";
import { ArenaRows } from "./arena-rows.ts";
import type { TensorReader } from "./constants.ts";
import { arenaOffset, type RecordedModel } from "./record-model.ts";
import type { StepInputs, StepLimits, StepOutputs } from "./step.ts";
import { type StepOutputName, viewStepInputs, viewStepOutputs } from "./step-memory.ts";

export interface AssembledModel {
  readonly program: Program;
  /** All but the weights; to be freed after the program. */
  readonly buffers: readonly Buffer[];
  readonly inputs: StepInputs;
  readonly outputs: Pick<StepOutputs, StepOutputName>;
  readonly hidden: ArenaRows;
  readonly logits: ArenaRows;
}

export interface AssembleOptions {
  readonly device: Device;
  readonly recorded: RecordedModel;
  readonly limits: StepLimits;
  /** One per file; they stay the caller's. */
  readonly weights: readonly Buffer[];
  /** What vectors and misaligned tensors are made from. */
  readonly readTensor: TensorReader;
  /** Of the CPU: copy weights that have a faster layout into it. */
  readonly repack?: boolean;
  /** Of CUDA: a row's bits never depend on other rows. */
  readonly deterministic?: boolean | undefined;
}

/** Assembles a model on a device. Throws `backend`; nothing stays allocated then but the weights. */
export function assembleModel(options: AssembleOptions): AssembledModel {
  const { device, recorded, limits, weights } = options;
  const { slots, program: recordedProgram, step, constants } = recorded;
  const own: Buffer[] = [];
  const buffers: Buffer[] = [];
  const make = (slot: number, bytes: number, kind: BufferKind = "device"): Buffer => {
    const buffer = device.createBuffer(bytes, kind);
    own.push(buffer);
    buffers[slot] = buffer;
    return buffer;
  };
  try {
    weights.forEach((buffer, file) => {
      buffers[slots.files + file] = buffer;
    });
    const arena = make(ARENA_SLOT, recordedProgram.plan.bytes);
    const inputs = viewStepInputs(make(step.inputs.slot, step.inputs.bytes, "host"), step.inputs);
    const outputs = viewStepOutputs(make(step.outputs.slot, step.outputs.bytes, "host"), step.outputs);
    fillConstants(make(slots.constants, constants.bytes), options);
    make(slots.cache, recorded.kvBytes, recorded.kvBufferKind);
    const rows = (tensor: Tensor): ArenaRows =>
      new ArenaRows(arena, arenaOffset(recorded, tensor), rowElements(tensor), limits.rowsMax);
    const program = device.createProgram(recordedProgram.words, buffers, {
      repack: options.repack ?? false,
      deterministic: options.deterministic ?? false,
    });
    return {
      program,
      buffers: own,
      inputs,
      outputs,
      hidden: rows(recorded.hidden),
      logits: rows(recorded.logits),
    };
  } catch (error) {
    for (const buffer of own) buffer.free();
    throw error;
  }
}

/** Gives back what `assembleModel` took. */
export function freeAssembled({ program, buffers }: AssembledModel): void {
  program.free();
  for (const buffer of buffers) buffer.free();
}

function fillConstants(buffer: Buffer, { recorded: { constants }, readTensor }: AssembleOptions): void {
  if (buffer.isVisible) {
    constants.fill(buffer.u8(0, constants.bytes), readTensor);
    return;
  }
  const memory = new Uint8Array(constants.bytes);
  constants.fill(memory, readTensor);
  buffer.write(0, memory);
}
