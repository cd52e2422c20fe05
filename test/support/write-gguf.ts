/**
 * Writes small GGUF files for tests: any metadata, any tensors, nothing checked, so that a test can also write
 * what a reader must refuse. Layout: GGUF specification, versions 2 and 3 (the same bytes but the number).
 */

import { writeFileSync } from "node:fs";
import { DTYPES, type DType } from "../../src/backend/dtype.ts";

const SCALAR_CODES = {
  u8: 0,
  i8: 1,
  u16: 2,
  i16: 3,
  u32: 4,
  i32: 5,
  f32: 6,
  bool: 7,
  string: 8,
  u64: 10,
  i64: 11,
  f64: 12,
} as const;
const ARRAY_CODE = 9;
const SCALAR_BYTES = {
  u8: 1,
  i8: 1,
  u16: 2,
  i16: 2,
  u32: 4,
  i32: 4,
  f32: 4,
  bool: 1,
  u64: 8,
  i64: 8,
  f64: 8,
};

export type GgufScalarType = keyof typeof SCALAR_CODES;
/** A scalar, a list (`"string[]"`) or a list of lists (`"u32[][]"`). */
export type GgufFieldType = GgufScalarType | `${GgufScalarType}[]` | `${GgufScalarType}[][]`;
export type GgufFieldScalar = number | bigint | boolean | string;
export type GgufFieldValue = GgufFieldScalar | readonly GgufFieldValue[];

export interface GgufField {
  readonly type: GgufFieldType;
  readonly value: GgufFieldValue;
}

export interface GgufTensor {
  readonly name: string;
  /** A type of ours, or any GGML number. */
  readonly dtype: DType | number;
  /** Row-major, outermost dimension first, as in `TensorEntry`. */
  readonly shape: readonly number[];
  readonly data: Uint8Array;
  /** Offset within the tensor data, instead of the next aligned one. */
  readonly offset?: number;
}

export interface GgufContent {
  readonly metadata: Readonly<Record<string, GgufField>>;
  readonly tensors: readonly GgufTensor[];
  /** Bytes; written as `general.alignment` when given and not already in the metadata. Default 32. */
  readonly alignment?: number;
  /** Default 3. */
  readonly version?: number;
}

/** The bytes of a GGUF file with this content. */
export function encodeGguf(content: GgufContent): Uint8Array {
  const { header, offsets, dataBytes } = encodeGgufHeader(content);
  const bytes = new Uint8Array(header.length + dataBytes);
  bytes.set(header);
  for (const [index, tensor] of content.tensors.entries())
    bytes.set(tensor.data, header.length + offsets[index]!);
  return bytes;
}

export interface GgufHeader {
  /** Everything before the tensors' data. */
  readonly header: Uint8Array;
  /** Of each tensor, within the data. */
  readonly offsets: readonly number[];
  readonly dataBytes: number;
}

/** What stands before the data; of the tensors' data only the lengths count. */
export function encodeGgufHeader(
  content: Omit<GgufContent, "tensors"> & {
    readonly tensors: readonly (Omit<GgufTensor, "data"> & { readonly data: { readonly length: number } })[];
  },
): GgufHeader {
  const alignment = content.alignment ?? 32;
  const metadata: Record<string, GgufField> = { ...content.metadata };
  if (content.alignment !== undefined && metadata["general.alignment"] === undefined) {
    metadata["general.alignment"] = { type: "u32", value: content.alignment };
  }
  const header = new ByteWriter();
  header.raw(new TextEncoder().encode("GGUF"));
  header.scalar("u32", content.version ?? 3);
  header.scalar("u64", content.tensors.length);
  header.scalar("u64", Object.keys(metadata).length);
  for (const [key, { type, value }] of Object.entries(metadata)) {
    header.scalar("string", key);
    header.scalar("u32", codeOf(type));
    header.value(type, value);
  }
  let next = 0;
  const offsets = content.tensors.map((tensor) => {
    const offset = tensor.offset ?? next;
    next = roundUp(Math.max(next, offset + tensor.data.length), alignment);
    return offset;
  });
  for (const [index, tensor] of content.tensors.entries()) {
    header.scalar("string", tensor.name);
    header.scalar("u32", tensor.shape.length);
    for (const dimension of [...tensor.shape].reverse()) header.scalar("u64", dimension);
    header.scalar("u32", typeof tensor.dtype === "number" ? tensor.dtype : DTYPES[tensor.dtype].code);
    header.scalar("u64", offsets[index]!);
  }
  const dataStart = roundUp(header.length, alignment);
  const padded = new Uint8Array(dataStart);
  padded.set(header.bytes());
  return { header: padded, offsets, dataBytes: next };
}

/** Writes a GGUF file with this content to `path`. */
export function writeGguf(path: string, content: GgufContent): void {
  writeFileSync(path, encodeGguf(content));
}

function codeOf(type: GgufFieldType): number {
  return type.endsWith("[]") ? ARRAY_CODE : SCALAR_CODES[type as GgufScalarType];
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}

class ByteWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  length = 0;

  bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length);
  }

  raw(bytes: Uint8Array): void {
    const at = this.#take(bytes.length);
    this.#bytes.set(bytes, at);
  }

  value(type: GgufFieldType, value: GgufFieldValue): void {
    if (!type.endsWith("[]")) {
      this.scalar(type as GgufScalarType, value as GgufFieldScalar);
      return;
    }
    const elementType = type.slice(0, -2) as GgufFieldType;
    const elements = value as readonly GgufFieldValue[];
    this.scalar("u32", codeOf(elementType));
    this.scalar("u64", elements.length);
    for (const element of elements) this.value(elementType, element);
  }

  scalar(type: GgufScalarType, value: GgufFieldScalar): void {
    if (type === "string") {
      const bytes = new TextEncoder().encode(String(value));
      this.scalar("u64", bytes.length);
      this.raw(bytes);
      return;
    }
    const at = this.#take(SCALAR_BYTES[type]);
    const view = this.#view; // after the room was made: that may replace it
    switch (type) {
      case "u8":
      case "bool":
        view.setUint8(at, Number(value));
        break;
      case "i8":
        view.setInt8(at, Number(value));
        break;
      case "u16":
        view.setUint16(at, Number(value), true);
        break;
      case "i16":
        view.setInt16(at, Number(value), true);
        break;
      case "u32":
        view.setUint32(at, Number(value), true);
        break;
      case "i32":
        view.setInt32(at, Number(value), true);
        break;
      case "f32":
        view.setFloat32(at, Number(value), true);
        break;
      case "f64":
        view.setFloat64(at, Number(value), true);
        break;
      case "u64":
        view.setBigUint64(at, BigInt(value), true);
        break;
      case "i64":
        view.setBigInt64(at, BigInt(value), true);
        break;
    }
  }

  /** Makes room for `count` more bytes and returns where they start. */
  #take(count: number): number {
    const start = this.length;
    this.length += count;
    if (this.length > this.#bytes.length) {
      const grown = new Uint8Array(Math.max(this.length, this.#bytes.length * 2));
      grown.set(this.#bytes);
      this.#bytes = grown;
      this.#view = new DataView(grown.buffer);
    }
    return start;
  }
}
