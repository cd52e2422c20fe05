/**
 * The inputs and outputs of a step: a buffer each (a program never writes where it reads indices from), laid out
 * once, declared to the program as tensors and shown to the engine as typed arrays of the same memory.
 */

import type { Buffer } from "../backend/device.ts";
import { bytesOfElements } from "../backend/dtype.ts";
import type { ProgramBuilder } from "../graph/builder.ts";
import { SAMPLING_PARAMETER_WORDS } from "../graph/ops.ts";
import { type Dimension, denseBytes, leadingOf, type Shape, type Tensor } from "../graph/tensor.ts";
import type { StepInputs, StepLimits, StepOutputs } from "./step.ts";

export type StepInputName = Exclude<keyof StepInputs, "samplingParametersF32">;
/** The hidden states lie in the arena, where they are computed; `ArenaRows` shows them. */
export type StepOutputName = Exclude<keyof StepOutputs, "hidden">;

export interface StepDimensions {
  readonly tokens: Dimension;
  readonly seqs: Dimension;
  readonly rows: Dimension;
}

interface Place {
  readonly byteOffset: number;
  readonly elements: number;
}

/** One of the two buffers. */
export interface StepBuffer<Name extends string> {
  readonly slot: number;
  readonly bytes: number;
  readonly tensors: Readonly<Record<Name, Tensor>>;
  readonly places: Readonly<Record<Name, Place>>;
}

export interface StepMemory {
  readonly inputs: StepBuffer<StepInputName>;
  readonly outputs: StepBuffer<StepOutputName>;
}

/** A cache line: no two arrays share one, and every view is aligned. */
const ALIGNMENT = 64;

type Shapes<Name extends string> = Readonly<Record<Name, readonly ["i32" | "f32", Shape]>>;

function inputShapes({ tokens, seqs, rows }: StepDimensions, limits: StepLimits): Shapes<StepInputName> {
  return {
    tokenIds: ["i32", [tokens]],
    positions: ["i32", [tokens]],
    slotMapping: ["i32", [tokens]],
    sequenceStarts: ["i32", [{ symbol: seqs, plus: 1 }]],
    contextLengths: ["i32", [seqs]],
    blockTables: ["i32", [seqs, limits.blocksPerSequenceMax]],
    logitRows: ["i32", [rows]],
    samplingParameters: ["i32", [rows, SAMPLING_PARAMETER_WORDS]],
    adjustmentStarts: ["i32", [{ symbol: rows, plus: 1 }]],
    adjustmentTokens: ["i32", [limits.adjustmentsMax]],
    adjustmentMultipliers: ["f32", [limits.adjustmentsMax]],
    adjustmentAddends: ["f32", [limits.adjustmentsMax]],
  };
}

function outputShapes({ rows }: StepDimensions, limits: StepLimits): Shapes<StepOutputName> {
  return {
    tokens: ["i32", [rows]],
    logprobs: ["f32", [rows]],
    topTokens: ["i32", [rows, limits.topLogprobsMax]],
    topLogprobs: ["f32", [rows, limits.topLogprobsMax]],
  };
}

/** Lays the arrays of one buffer out one after the other and declares them to the program. */
function declareBuffer<Name extends string>(
  program: ProgramBuilder,
  bufferName: string,
  shapes: Shapes<Name>,
): StepBuffer<Name> {
  const entries = Object.entries(shapes) as [Name, Shapes<Name>[Name]][];
  let bytes = 0;
  const places = entries.map(([, [dtype, shape]]): Place => {
    const size = denseBytes(dtype, leadingOf(shape[0]), shape.slice(1) as number[]);
    const byteOffset = bytes;
    bytes = Math.ceil((byteOffset + size) / ALIGNMENT) * ALIGNMENT;
    return { byteOffset, elements: size / bytesOfElements(dtype, 1) };
  });
  const slot = program.buffer(bufferName, bytes);
  const tensors = entries.map(([name, [dtype, shape]], index) =>
    program.bind(name, dtype, shape, { slot, byteOffset: places[index]!.byteOffset }),
  );
  const byName = <T>(values: readonly T[]): Record<Name, T> =>
    Object.fromEntries(entries.map(([name], index) => [name, values[index]!])) as Record<Name, T>;
  return { slot, bytes, tensors: byName(tensors), places: byName(places) };
}

/** Declares the inputs and outputs of a step to the program. */
export function declareStepMemory(
  program: ProgramBuilder,
  dimensions: StepDimensions,
  limits: StepLimits,
): StepMemory {
  return {
    inputs: declareBuffer(program, "step inputs", inputShapes(dimensions, limits)),
    outputs: declareBuffer(program, "step outputs", outputShapes(dimensions, limits)),
  };
}

/** Typed arrays of the inputs; valid until the buffer is freed. */
export function viewStepInputs(buffer: Buffer, { places }: StepMemory["inputs"]): StepInputs {
  const i32 = (name: StepInputName): Int32Array => buffer.i32(places[name].byteOffset, places[name].elements);
  const f32 = (name: StepInputName): Float32Array =>
    buffer.f32(places[name].byteOffset, places[name].elements);
  return {
    tokenIds: i32("tokenIds"),
    positions: i32("positions"),
    slotMapping: i32("slotMapping"),
    sequenceStarts: i32("sequenceStarts"),
    contextLengths: i32("contextLengths"),
    blockTables: i32("blockTables"),
    logitRows: i32("logitRows"),
    samplingParameters: i32("samplingParameters"),
    samplingParametersF32: f32("samplingParameters"),
    adjustmentStarts: i32("adjustmentStarts"),
    adjustmentTokens: i32("adjustmentTokens"),
    adjustmentMultipliers: f32("adjustmentMultipliers"),
    adjustmentAddends: f32("adjustmentAddends"),
  };
}

/** Typed arrays of the outputs; valid until the buffer is freed. */
export function viewStepOutputs(
  buffer: Buffer,
  { places }: StepMemory["outputs"],
): Pick<StepOutputs, StepOutputName> {
  const i32 = (name: StepOutputName): Int32Array =>
    buffer.i32(places[name].byteOffset, places[name].elements);
  const f32 = (name: StepOutputName): Float32Array =>
    buffer.f32(places[name].byteOffset, places[name].elements);
  return {
    tokens: i32("tokens"),
    logprobs: f32("logprobs"),
    topTokens: i32("topTokens"),
    topLogprobs: f32("topLogprobs"),
  };
}
