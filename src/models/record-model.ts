/**
 * Records the whole program of a checkpoint: declares its buffers, binds every weight where it lies, lets the
 * family record its arithmetic and ends with sampling. Pure: no device, no file is read.
 */

import type { BufferKind } from "../backend/device.ts";
import { DTYPES, type DType } from "../backend/dtype.ts";
import { MistralError } from "../errors.ts";
import { type ActivationPrecision, ProgramBuilder, type RecordedProgram } from "../graph/builder.ts";
import { sample } from "../graph/record.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { Checkpoint, TensorEntry } from "../weights/types.ts";
import type { FileRegion } from "../weights/upload.ts";
import type { RopeKind } from "./config.ts";
import { Constants, isAligned, vectorOf } from "./constants.ts";
import { type CacheOptions, declareCaches } from "./declare-caches.ts";
import type { ModelFamily, ModelRecording } from "./family.ts";
import { ropeFrequencies } from "./rope-frequencies.ts";
import { declareStepMemory, type StepMemory } from "./step-memory.ts";
import { describeKey, findTensors, ROPE_DIVISORS_NAME } from "./tensor-names.ts";

export interface RecordedModel {
  readonly program: RecordedProgram;
  readonly step: StepMemory;
  readonly constants: Constants;
  readonly hidden: Tensor;
  readonly logits: Tensor;
  readonly kvBytes: number;
  /** The memory that the KV pool is made for. */
  readonly kvBufferKind: BufferKind;
  /** Bytes of the tensors that the program reads, in their files. */
  readonly weightBytes: number;
  /** Slots of the buffers, besides the arena and those of the step. */
  readonly slots: {
    readonly constants: number;
    readonly cache: number;
    /** Slot of file 0; the other files follow. */
    readonly files: number;
  };
}

export interface RecordModelOptions extends CacheOptions {
  readonly checkpoint: Checkpoint;
  readonly family: ModelFamily;
  /** "precise" when not given. */
  readonly activations?: ActivationPrecision | undefined;
  /** The part of each file that its buffer holds; all of it when not given. */
  readonly regions?: readonly FileRegion[];
}

/** Records the program of a model. Throws `invalid_model_file` for tensors that do not fit the configuration. */
export function recordModel(options: RecordModelOptions): RecordedModel {
  const { checkpoint, family, config, limits } = options;
  const entries = findTensors(checkpoint, family.tensors(config), family.huggingFaceNames);
  const program = new ProgramBuilder({ activations: options.activations });
  const dimensions = {
    tokens: program.dimension("tokens", limits.tokensMax),
    seqs: program.dimension("seqs", limits.sequencesMax),
    rows: program.dimension("rows", limits.rowsMax),
  };
  const step = declareStepMemory(program, dimensions, limits);
  const constants = new Constants();
  const rotations = reserveRotations(constants, options);
  const regions = options.regions ?? checkpoint.files.map(({ bytes }) => ({ offset: 0, bytes }));
  const places = placeWeights(constants, entries, regions);
  const constantsSlot = program.buffer("constants", constants.bytes);
  const cache = declareCaches(program, options);
  const fileSlots = checkpoint.files.map(({ path }, file) => program.buffer(path, regions[file]!.bytes));

  const bound = new Map<string, Tensor>();
  const weight = (key: string): Tensor => {
    const place = places.get(key);
    if (place === undefined) throw new Error(`the ${family.name} family did not ask for the tensor ${key}`);
    let tensor = bound.get(key);
    if (tensor === undefined) {
      const { entry, dtype, constantOffset } = place;
      const slot = constantOffset === undefined ? fileSlots[entry.file]! : constantsSlot;
      tensor = program.bind(key, dtype, entry.shape as [number, ...number[]], {
        slot,
        byteOffset: constantOffset ?? entry.offset - regions[entry.file]!.offset,
        readOnly: true,
      });
      bound.set(key, tensor);
    }
    return tensor;
  };
  const recording: ModelRecording = {
    program,
    config,
    inputs: step.inputs.tensors,
    caches: cache.caches,
    weight: (name) => weight(describeKey({ name })),
    layerWeight: (layer, name) => weight(describeKey({ name, layer })),
    rotation: (kind) => ({
      inverseFrequencies: program.bind(`inverse_frequencies.${kind}`, "f32", [config.ropes[kind].dims / 2], {
        slot: constantsSlot,
        byteOffset: rotations[kind].byteOffset,
        readOnly: true,
      }),
      attentionFactor: rotations[kind].attentionFactor,
    }),
  };
  const { hidden, logits } = family.record(recording);
  const { samplingParameters: parameters, ...adjustments } = step.inputs.tensors;
  sample(program, { logits, parameters, ...adjustments, ...step.outputs.tensors });
  return {
    program: program.finish(),
    step,
    constants,
    hidden,
    logits,
    kvBytes: cache.bytes,
    kvBufferKind: cache.kind,
    weightBytes: [...entries.values()].reduce((total, { bytes }) => total + bytes, 0),
    slots: { constants: constantsSlot, cache: cache.slot, files: cache.slot + 1 },
  };
}

/** Where a tensor that outlasts the program lies in the arena, in bytes. */
export function arenaOffset({ program }: RecordedModel, { name, storage }: Tensor): number {
  if (storage.kind !== "arena") throw new Error(`${name} does not lie in the arena`);
  return program.plan.storages[storage.index]!.offset;
}

interface WeightPlace {
  readonly entry: TensorEntry;
  readonly dtype: DType;
  /** Offset in the constants; undefined when the tensor stays in its file. */
  readonly constantOffset: number | undefined;
}

/** Matrices stay in their files; vectors that are not f32, and what is not aligned, move to the constants. */
function placeWeights(
  constants: Constants,
  entries: ReadonlyMap<string, TensorEntry>,
  regions: readonly FileRegion[],
): Map<string, WeightPlace> {
  const places = new Map<string, WeightPlace>();
  for (const [key, entry] of entries) {
    const { dtype, shape, bytes } = entry;
    const aligned = isAligned({ dtype, offset: entry.offset - regions[entry.file]!.offset });
    if (dtype === "i32") {
      throw new MistralError("invalid_model_file", `tensor ${entry.name} holds integers, not weights`);
    }
    if (shape.length === 1 && (dtype !== "f32" || !aligned)) {
      const constantOffset = constants.reserve(shape[0]! * DTYPES.f32.blockBytes, (read) =>
        bytesOf(vectorOf(entry, read(entry))),
      );
      places.set(key, { entry, dtype: "f32", constantOffset });
    } else if (aligned) {
      places.set(key, { entry, dtype, constantOffset: undefined });
    } else {
      places.set(key, { entry, dtype, constantOffset: constants.reserve(bytes, (read) => read(entry)) });
    }
  }
  return places;
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

type Rotations = Readonly<
  Record<RopeKind, { readonly byteOffset: number; readonly attentionFactor: number }>
>;

function reserveRotations(
  constants: Constants,
  { checkpoint, config, limits }: RecordModelOptions,
): Rotations {
  const divisors = checkpoint.format === "gguf" ? checkpoint.tensors.get(ROPE_DIVISORS_NAME) : undefined;
  const reserve = (kind: RopeKind): Rotations[RopeKind] => {
    const settings = config.ropes[kind];
    const pairs = settings.dims / 2;
    if (divisors !== undefined && (divisors.shape.length !== 1 || divisors.shape[0] !== pairs)) {
      const shape = divisors.shape.join(", ");
      throw new MistralError("invalid_model_file", `tensor ${divisors.name} is [${shape}], not [${pairs}]`);
    }
    const byteOffset = constants.reserve(pairs * DTYPES.f32.blockBytes, (read) => {
      const values = divisors === undefined ? undefined : vectorOf(divisors, read(divisors));
      return bytesOf(ropeFrequencies(settings, limits.contextLength, values).inverseFrequencies);
    });
    return { byteOffset, attentionFactor: ropeFrequencies(settings, limits.contextLength).attentionFactor };
  };
  return { global: reserve("global"), local: reserve("local") };
}
