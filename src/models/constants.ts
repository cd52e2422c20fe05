/**
 * Memory of our own beside the mapped weights: what the ops need in another form than the file has it. Frequencies
 * of the rotation, small vectors as f32, and tensors whose place in the file is not aligned to their elements.
 */

import { DTYPES, type DType } from "../backend/dtype.ts";
import { MistralError } from "../errors.ts";
import type { TensorEntry } from "../weights/types.ts";

/** The stored bytes of a tensor. */
export type TensorReader = (entry: TensorEntry) => Uint8Array;

interface Constant {
  readonly byteOffset: number;
  readonly bytes: number;
  readonly make: (read: TensorReader) => Uint8Array;
}

const ALIGNMENT = 64;

export class Constants {
  readonly #list: Constant[] = [];
  bytes = 0;

  /** Reserves memory that `make` will fill; answers its offset. */
  reserve(bytes: number, make: Constant["make"]): number {
    const byteOffset = this.bytes;
    this.#list.push({ byteOffset, bytes, make });
    this.bytes = Math.ceil((byteOffset + bytes) / ALIGNMENT) * ALIGNMENT;
    return byteOffset;
  }

  /** Fills the memory, once the files can be read. */
  fill(memory: Uint8Array, read: TensorReader): void {
    for (const { byteOffset, bytes, make } of this.#list) {
      const made = make(read);
      if (made.byteLength !== bytes)
        throw new Error(`a constant of ${bytes} bytes was made with ${made.byteLength}`);
      memory.set(made, byteOffset);
    }
  }
}

/** Whether the ops can read a tensor at this offset of its buffer. */
export function isAligned({ dtype, offset }: Pick<TensorEntry, "dtype" | "offset">): boolean {
  const { blockElements, blockBytes } = DTYPES[dtype];
  return offset % (blockElements > 1 ? 2 : blockBytes) === 0;
}

function f32OfF16(bits: number): number {
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** The element types that `vectorOf` reads. */
function isPlain(dtype: DType): dtype is "f32" | "f16" | "bf16" {
  return dtype === "f32" || dtype === "f16" || dtype === "bf16";
}

/** A small tensor as f32. Throws `unsupported_model` for a quantised one. */
export function vectorOf(
  { name, dtype }: Pick<TensorEntry, "name" | "dtype">,
  stored: Uint8Array,
): Float32Array {
  if (!isPlain(dtype)) {
    throw new MistralError(
      "unsupported_model",
      `tensor ${name} is a vector of ${dtype}; f32, f16 or bf16 is read`,
    );
  }
  // A copy, because typed arrays need an aligned start.
  const { buffer } = stored.slice();
  if (dtype === "f32") return new Float32Array(buffer);
  const halves = new Uint16Array(buffer);
  if (dtype === "f16") return Float32Array.from(halves, f32OfF16);
  const words = Uint32Array.from(halves, (bits) => bits * 65_536);
  return new Float32Array(words.buffer);
}
