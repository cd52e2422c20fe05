/**
 * Records a program: declares its symbolic dimensions, buffers and tensors, and takes its ops in order. It
 * checks that an op has the operands and attributes of the op table; the shapes of each op are checked by
 * `record.ts`. It owns no memory and runs nothing: `finish` plans the arena and encodes the words.
 */

import { bytesOfElements, DTYPES, type DType } from "../backend/dtype.ts";
import { encodeProgram } from "./encode.ts";
import { RANK_MAX } from "./format.ts";
import { type MemoryPlan, planMemory } from "./memory-plan.ts";
import { OPS, type OpName, type OpSpec } from "./ops.ts";
import {
  type ArenaStorage,
  type Dimension,
  denseBytes,
  describeTensor,
  leadingMaximum,
  leadingOf,
  product,
  rankOf,
  rowElements,
  type Shape,
  type Tensor,
} from "./tensor.ts";

/** Slot of the activation arena in the list of buffers. */
export const ARENA_SLOT = 0;

export interface RecordedOp {
  readonly name: OpName;
  /** In the op table's order. */
  readonly operands: readonly (Tensor | undefined)[];
  readonly attributes: readonly number[];
}

export interface BufferDeclaration {
  readonly name: string;
  readonly bytes: number;
}

/** A program ready for a device. */
export interface RecordedProgram {
  readonly words: Uint32Array;
  readonly plan: MemoryPlan;
  readonly dimensions: readonly Dimension[];
  readonly tensors: readonly Tensor[];
  readonly ops: readonly RecordedOp[];
}

/** Bytes of the whole blocks that `elements` elements occupy within a dense row. */
function rowBytes(dtype: DType, elements: number): number {
  const { blockElements, blockBytes } = DTYPES[dtype];
  return (elements / blockElements) * blockBytes;
}

/**
 * How exactly matrix products take their activations: "precise" loses nothing that f32 would keep, "fast" rounds them
 * to what the device multiplies fastest (see `matmul` in the op table).
 */
export type ActivationPrecision = "precise" | "fast";

export class ProgramBuilder {
  /** Of products that do not say it themselves. */
  readonly activations: ActivationPrecision;
  readonly dimensions: Dimension[] = [];
  readonly tensors: Tensor[] = [];
  readonly ops: RecordedOp[] = [];
  /** Slot 0 is the arena; its size is known when the program is finished. */
  readonly buffers: BufferDeclaration[] = [{ name: "arena", bytes: 0 }];
  #arenaStorages: ArenaStorage[] = [];

  constructor({ activations = "precise" }: { readonly activations?: ActivationPrecision | undefined } = {}) {
    this.activations = activations;
  }

  dimension(name: string, maximum: number): Dimension {
    if (!Number.isInteger(maximum) || maximum < 1 || maximum > 0x7fffffff) {
      throw new Error(`dimension ${name}: maximum ${maximum} is not a positive 32-bit integer`);
    }
    const dimension = { index: this.dimensions.length, name, maximum };
    this.dimensions.push(dimension);
    return dimension;
  }

  /** Declares a buffer that will be handed over beside the program; answers its slot. */
  buffer(name: string, bytes: number): number {
    if (!Number.isSafeInteger(bytes) || bytes < 0) throw new Error(`buffer ${name}: ${bytes} bytes`);
    return this.buffers.push({ name, bytes }) - 1;
  }

  /**
   * A tensor in a declared buffer: a weight (`readOnly`), a step input, a cache or an output. `leadingStride`:
   * elements from one leading index to the next, those of one when not given.
   */
  bind(
    name: string,
    dtype: DType,
    shape: Shape,
    place: {
      readonly slot: number;
      readonly byteOffset: number;
      readonly readOnly?: boolean;
      readonly leadingStride?: number;
    },
  ): Tensor {
    const buffer = this.buffers[place.slot];
    if (buffer === undefined || place.slot === ARENA_SLOT) {
      throw new Error(`tensor ${name}: there is no buffer slot ${place.slot} to bind to`);
    }
    const tensor = this.#add(name, dtype, shape, {
      storage: { kind: "buffer", slot: place.slot, byteOffset: place.byteOffset },
      readOnly: place.readOnly ?? false,
      ...(place.leadingStride === undefined ? {} : { leadingStride: place.leadingStride }),
    });
    const between = tensor.leadingStride - rowElements(tensor);
    const gaps = between * Math.max(0, leadingMaximum(tensor.leading) - 1);
    const end =
      place.byteOffset + denseBytes(dtype, tensor.leading, tensor.inner) + bytesOfElements(dtype, gaps);
    if (!Number.isSafeInteger(place.byteOffset) || place.byteOffset < 0 || end > buffer.bytes) {
      throw new Error(
        `tensor ${describeTensor(tensor)} ends at byte ${end} of buffer ${buffer.name} (${buffer.bytes} bytes)`,
      );
    }
    return tensor;
  }

  /** A dense f32 or i32 tensor in the arena. `keep` holds its contents past the last op. */
  activation(
    name: string,
    shape: Shape,
    options: { readonly dtype?: "f32" | "i32"; readonly keep?: boolean } = {},
  ): Tensor {
    const dtype = options.dtype ?? "f32";
    const leading = leadingOf(shape[0]);
    const inner = shape.slice(1) as number[];
    const storage: ArenaStorage = {
      kind: "arena",
      index: this.#arenaStorages.length,
      name,
      bytes: denseBytes(dtype, leading, inner),
      keep: options.keep ?? false,
    };
    this.#arenaStorages.push(storage);
    return this.#add(name, dtype, shape, { storage, readOnly: false });
  }

  /** The columns `start .. start + width` of a rank-2 tensor, as a view of the same memory. */
  columns(of: Tensor, start: number, width: number, name = `${of.name}[${start}:${start + width}]`): Tensor {
    const columnCount = of.inner[0];
    if (rankOf(of) !== 2 || columnCount === undefined) {
      throw new Error(`columns of ${describeTensor(of)}: the tensor must have rank 2`);
    }
    const { blockElements } = DTYPES[of.dtype];
    if (
      start < 0 ||
      width < 1 ||
      start + width > columnCount ||
      start % blockElements ||
      width % blockElements
    ) {
      throw new Error(`columns ${start} .. ${start + width} are not columns of ${describeTensor(of)}`);
    }
    return this.#add(name, of.dtype, [of.leading, width], {
      storage: of.storage,
      readOnly: of.readOnly,
      leadingStride: of.leadingStride,
      byteOffset: of.byteOffset + rowBytes(of.dtype, start),
    });
  }

  /** The same rows split into `[..., heads, width]`, as a view of the same memory. */
  heads(of: Tensor, heads: number, width: number, name = `${of.name}:heads`): Tensor {
    if (rankOf(of) !== 2 || rowElements(of) !== heads * width) {
      throw new Error(`${describeTensor(of)} does not split into ${heads} heads of ${width}`);
    }
    return this.#add(name, of.dtype, [of.leading, heads, width], {
      storage: of.storage,
      readOnly: of.readOnly,
      leadingStride: of.leadingStride,
      byteOffset: of.byteOffset,
    });
  }

  /**
   * Appends an op. Operands and attributes are given by the names of the op table; what the table does not
   * name, or a required operand that is missing, is an error.
   */
  record(
    name: OpName,
    operands: Readonly<Record<string, Tensor | undefined>>,
    attributes: Readonly<Record<string, number>> = {},
  ): void {
    const spec: OpSpec = OPS[name];
    for (const key of Object.keys(operands)) {
      if (!spec.operands.some((operand) => operand.name === key))
        throw new Error(`${name} has no operand ${key}`);
    }
    for (const key of Object.keys(attributes)) {
      if (!spec.attributes.some((attribute) => attribute.name === key)) {
        throw new Error(`${name} has no attribute ${key}`);
      }
    }
    this.ops.push({
      name,
      operands: spec.operands.map((operand) => {
        const tensor = operands[operand.name];
        if (tensor === undefined && operand.optional !== true)
          throw new Error(`${name}: no operand ${operand.name}`);
        if (tensor !== undefined && this.tensors[tensor.id] !== tensor) {
          throw new Error(`${name}: operand ${operand.name} (${tensor.name}) belongs to another program`);
        }
        if (tensor?.readOnly && operand.access !== "read") {
          throw new Error(
            `${name}: operand ${operand.name} is written, but ${describeTensor(tensor)} is read-only`,
          );
        }
        return tensor;
      }),
      attributes: spec.attributes.map((attribute) => {
        const value = attributes[attribute.name];
        if (value === undefined || Number.isNaN(value))
          throw new Error(`${name}: no attribute ${attribute.name}`);
        if (attribute.type === "i32" && !Number.isInteger(value)) {
          throw new Error(`${name}: attribute ${attribute.name} is ${value}, not an integer`);
        }
        return value;
      }),
    });
  }

  /** Plans the arena and encodes the program. The builder can go on recording; the result does not change. */
  finish(): RecordedProgram {
    const ops = [...this.ops];
    const tensors = [...this.tensors];
    const dimensions = [...this.dimensions];
    const plan = planMemory(this.#arenaStorages, ops);
    const words = encodeProgram({ dimensions, tensors, ops, bufferCount: this.buffers.length, plan });
    return { words, plan, dimensions, tensors, ops };
  }

  #add(
    name: string,
    dtype: DType,
    shape: Shape,
    where: Pick<Tensor, "storage" | "readOnly"> & { leadingStride?: number; byteOffset?: number },
  ): Tensor {
    const leading = leadingOf(shape[0]);
    const inner = shape.slice(1) as number[];
    const rank = shape.length;
    const dimensionsOk = inner.every((size) => Number.isInteger(size) && size >= 1 && size <= 0x7fffffff);
    if (rank > RANK_MAX || !dimensionsOk || !Number.isInteger(leading.plus) || leading.plus < 0) {
      throw new Error(`tensor ${name}: shape [${leading.plus}, ${inner.join(", ")}] is impossible`);
    }
    const row = inner.at(-1) ?? leading.plus;
    if (row % DTYPES[dtype].blockElements !== 0) {
      throw new Error(
        `tensor ${name}: a row of ${row} is not a whole number of ${dtype} blocks of ${DTYPES[dtype].blockElements}`,
      );
    }
    const tensor: Tensor = {
      id: this.tensors.length,
      name,
      dtype,
      leading,
      inner,
      leadingStride: where.leadingStride ?? product(inner),
      storage: where.storage,
      byteOffset: where.byteOffset ?? 0,
      readOnly: where.readOnly,
    };
    this.tensors.push(tensor);
    return tensor;
  }
}
