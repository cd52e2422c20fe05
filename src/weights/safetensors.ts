/**
 * Reads the header of one safetensors file (safetensors README, "Format"): 8 bytes of header length, a JSON header,
 * then the tensors, which must fill the rest of the file without a hole or an overlap. The data is never read.
 */

import type { FileDType } from "../backend/dtype.ts";
import { isJsonObject, parseJsonObject } from "./json-file.ts";
import { malformed, quoted } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";
import type { TensorEntry } from "./types.ts";

/** The limit of the reference implementation. */
const HEADER_BYTES_MAX = 100_000_000;
const DIMENSIONS_MAX = 32;

const READ_TYPES: ReadonlyMap<string, FileDType> = new Map<string, FileDType>([
  ["F32", "f32"],
  ["F16", "f16"],
  ["BF16", "bf16"],
  ["I32", "i32"],
]);

/** Bits of one element of every type of the format. */
const TYPE_BITS: ReadonlyMap<string, number> = new Map([
  ["BOOL", 8],
  ["F4", 4],
  ["F6_E2M3", 6],
  ["F6_E3M2", 6],
  ["U8", 8],
  ["I8", 8],
  ["F8_E5M2", 8],
  ["F8_E4M3", 8],
  ["F8_E8M0", 8],
  ["F8_E4M3FNUZ", 8],
  ["F8_E5M2FNUZ", 8],
  ["I16", 16],
  ["U16", 16],
  ["F16", 16],
  ["BF16", 16],
  ["I32", 32],
  ["U32", 32],
  ["F32", 32],
  ["C64", 64],
  ["F64", 64],
  ["I64", 64],
  ["U64", 64],
]);

export interface SafetensorsFile {
  readonly path: string;
  readonly bytes: number;
  readonly identity: string;
  /** In the order of their offsets; `file` is the index given to `readSafetensorsFile`. */
  readonly tensors: readonly TensorEntry[];
  /** Name and stored type of each tensor whose type is well-formed but not read. */
  readonly unread: ReadonlyMap<string, string>;
}

/** Reads the header of the safetensors file at `path`, as file number `fileIndex` of its collection. */
export function readSafetensorsFile(path: string, fileIndex = 0): SafetensorsFile {
  return PositionedFile.use(path, (file) => {
    const { header, dataStart } = readHeader(file);
    const entries: StoredTensor[] = [];
    for (const [name, value] of Object.entries(header)) {
      if (name === "__metadata__") checkMetadata(path, value);
      else entries.push(parseEntry(path, name, value));
    }
    expectContiguous(path, entries, dataStart, file.bytes);
    const tensors: TensorEntry[] = [];
    const unread = new Map<string, string>();
    for (const { name, type, shape, start, end } of entries) {
      const dtype = READ_TYPES.get(type);
      if (dtype === undefined) unread.set(name, type);
      else
        tensors.push({ name, dtype, shape, file: fileIndex, offset: dataStart + start, bytes: end - start });
    }
    return { path, bytes: file.bytes, identity: file.identity, tensors, unread };
  });
}

/** A tensor as the header has it: its range counts from the start of the data. */
interface StoredTensor {
  readonly name: string;
  readonly type: string;
  readonly shape: readonly number[];
  readonly start: number;
  readonly end: number;
}

function readHeader(file: PositionedFile): { header: Record<string, unknown>; dataStart: number } {
  if (file.bytes < 8) {
    throw malformed(file.path, file.bytes, "the file ends inside the 8 bytes of header length");
  }
  const lengthBytes = new Uint8Array(8);
  file.readInto(lengthBytes, 0);
  const length = new DataView(lengthBytes.buffer).getBigUint64(0, true);
  if (length > BigInt(HEADER_BYTES_MAX)) {
    throw malformed(file.path, 0, `a header of ${length} bytes is more than the ${HEADER_BYTES_MAX} allowed`);
  }
  const dataStart = 8 + Number(length);
  if (dataStart > file.bytes) {
    throw malformed(file.path, 0, `the header reaches to byte ${dataStart}; the file ends at ${file.bytes}`);
  }
  const json = new Uint8Array(Number(length));
  file.readInto(json, 8);
  if (json[0] !== 0x7b) throw malformed(file.path, 8, 'the header does not begin with "{"');
  return { header: parseJsonObject(file.path, 8, json), dataStart };
}

function checkMetadata(path: string, value: unknown): void {
  if (isJsonObject(value) && Object.values(value).every((text) => typeof text === "string")) return;
  throw malformed(path, 8, "__metadata__ is not an object of strings");
}

function parseEntry(path: string, name: string, value: unknown): StoredTensor {
  const fail = (reason: string): never => {
    throw malformed(path, 8, `tensor ${quoted(name)} ${reason}`);
  };
  if (!isJsonObject(value)) return fail("is not described by an object");
  const { dtype: type, shape, data_offsets: offsets } = value;
  const bits = typeof type === "string" ? TYPE_BITS.get(type) : undefined;
  if (typeof type !== "string" || bits === undefined) {
    return fail(`has unknown dtype ${quoted(JSON.stringify(type) ?? "none")}`);
  }
  if (!isSizes(shape) || shape.length > DIMENSIONS_MAX)
    return fail("has a shape that is not a list of sizes");
  if (!isSizes(offsets) || offsets.length !== 2) return fail("has data_offsets that are not two offsets");
  const [start, end] = offsets as [number, number];
  if (start > end) return fail(`ends at ${end}, before its start at ${start}`);
  let elements = 1;
  for (const dimension of shape) {
    elements *= dimension;
    if (!Number.isSafeInteger(elements * bits)) return fail(`has shape [${shape}], whose size overflows`);
  }
  const bytes = (elements * bits) / 8;
  if (bytes !== end - start) {
    return fail(
      `of type ${type} and shape [${shape}] takes ${bytes} bytes, but its range holds ${end - start}`,
    );
  }
  return { name, type, shape, start, end };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** Sorts `entries` by offset and throws unless they fill the data from its first byte to its last. */
function expectContiguous(path: string, entries: StoredTensor[], dataStart: number, fileBytes: number): void {
  entries.sort((a, b) => a.start - b.start || a.end - b.end);
  let next = 0;
  for (const { name, start, end } of entries) {
    const at = dataStart + start;
    if (start < next) throw malformed(path, at, `tensor ${quoted(name)} overlaps the tensor before it`);
    if (start > next) throw malformed(path, dataStart + next, `${start - next} bytes belong to no tensor`);
    if (dataStart + end > fileBytes) {
      const reason = `reaches to byte ${dataStart + end}; the file ends at ${fileBytes}`;
      throw malformed(path, at, `tensor ${quoted(name)} ${reason}`);
    }
    next = end;
  }
  if (dataStart + next !== fileBytes) {
    throw malformed(path, dataStart + next, `${fileBytes - dataStart - next} bytes belong to no tensor`);
  }
}
