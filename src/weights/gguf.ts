/**
 * Reads the header of one GGUF file, version 2 or 3, little-endian (GGUF specification, "File Structure"):
 * metadata and the place of every tensor. The tensor data is never read. A file that was accepted has tensors
 * that lie inside it, aligned and apart from each other.
 */

import { dtypeOfCode } from "../backend/dtype.ts";
import { ggmlTypeName } from "./ggml-types.ts";
import { GgufCursor } from "./gguf-cursor.ts";
import { readMetadata } from "./gguf-values.ts";
import { quoted, unsupported } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";
import { expectNoOverlap, tensorBytes } from "./tensor-ranges.ts";
import type { GgufMetadata, TensorEntry } from "./types.ts";

/** "GGUF" read as a little-endian number. */
const MAGIC = 0x46554747;
const VERSIONS = [2, 3];
const DEFAULT_ALIGNMENT = 32;
const ALIGNMENT_MAX = 1 << 20;
const TENSORS_MAX = 1 << 20;
const DIMENSIONS_MAX = 4; // GGML_MAX_DIMS
/** A tensor with an empty name and no dimension: 8 + 4 + 4 + 8. */
const TENSOR_BYTES_MIN = 24;

export interface GgufFile {
  readonly path: string;
  readonly bytes: number;
  /** Device and inode, to notice one file under two names. */
  readonly identity: string;
  readonly version: number;
  readonly metadata: GgufMetadata;
  /** In the order of the file; `file` is the index given to `readGgufFile`. */
  readonly tensors: readonly TensorEntry[];
}

/**
 * Reads the header of the GGUF file at `path`, as file number `fileIndex` of its collection. Throws
 * `model_not_found`, `invalid_model_file` with path, byte and reason, or `unsupported_model`.
 */
export function readGgufFile(path: string, fileIndex = 0): GgufFile {
  return PositionedFile.use(path, (file) => {
    const cursor = new GgufCursor(file);
    const version = readVersion(cursor);
    const tensorCountOffset = cursor.offset;
    const tensorCount = cursor.count("the number of tensors");
    const entryCountOffset = cursor.offset;
    const entryCount = cursor.count("the number of metadata entries");
    if (tensorCount > TENSORS_MAX) {
      cursor.fail(`${tensorCount} tensors are more than the ${TENSORS_MAX} allowed`, tensorCountOffset);
    }
    const metadata = readMetadata(cursor, entryCount, entryCountOffset);
    cursor.expectRoom(tensorCount, TENSOR_BYTES_MIN, "tensors", tensorCountOffset);
    const tensors = readTensors(cursor, tensorCount, alignmentOf(cursor, metadata), fileIndex);
    return { path, bytes: file.bytes, identity: file.identity, version, metadata, tensors };
  });
}

function readVersion(cursor: GgufCursor): number {
  const magic = cursor.u32("the magic number");
  if (magic !== MAGIC) {
    const found = magic.toString(16).padStart(8, "0");
    cursor.fail(`not a GGUF file: it begins with 0x${found}, not with "GGUF" (0x${MAGIC.toString(16)})`, 0);
  }
  const version = cursor.u32("the version");
  if (VERSIONS.includes(version)) return version;
  // A version is a small number; one with only its top byte set was written with the bytes the other way round.
  if (version !== 0 && (version & 0xffff) === 0) {
    throw unsupported(
      cursor.file.path,
      "a big-endian GGUF file; only little-endian files are read, convert it",
    );
  }
  throw unsupported(
    cursor.file.path,
    `GGUF version ${version} at byte 4; versions 2 and 3 are read, convert it`,
  );
}

function alignmentOf(cursor: GgufCursor, metadata: GgufMetadata): number {
  const alignment = metadata.get("general.alignment") ?? DEFAULT_ALIGNMENT;
  const isPowerOfTwo =
    typeof alignment === "number" && alignment >= 8 && Number.isInteger(Math.log2(alignment));
  if (isPowerOfTwo && alignment <= ALIGNMENT_MAX) return alignment;
  return cursor.fail(
    `general.alignment is ${String(alignment)}, not a power of two from 8 to ${ALIGNMENT_MAX}`,
  );
}

/** A tensor as the header has it: its offset counts from the start of the data section. */
interface TensorInfo extends TensorEntry {
  readonly infoOffset: number;
}

function readTensors(cursor: GgufCursor, count: number, alignment: number, fileIndex: number): TensorEntry[] {
  const infos: TensorInfo[] = [];
  const names = new Set<string>();
  for (let index = 0; index < count; index++) {
    const info = readTensorInfo(cursor, index, fileIndex);
    if (names.has(info.name)) cursor.fail(`tensor name ${quoted(info.name)} occurs twice`, info.infoOffset);
    names.add(info.name);
    infos.push(info);
  }
  const dataStart = Math.ceil(cursor.offset / alignment) * alignment;
  const tensors = infos.map(({ infoOffset, ...tensor }) => {
    if (tensor.offset % alignment !== 0) {
      const reason = `starts at byte ${tensor.offset} of the data, not a multiple of the alignment ${alignment}`;
      cursor.fail(`tensor ${quoted(tensor.name)} ${reason}`, infoOffset);
    }
    const offset = dataStart + tensor.offset;
    if (offset + tensor.bytes > cursor.file.bytes) {
      const range = `bytes ${offset} to ${offset + tensor.bytes}`;
      cursor.fail(
        `tensor ${quoted(tensor.name)} needs ${range}; the file ends at ${cursor.file.bytes}`,
        infoOffset,
      );
    }
    return { ...tensor, offset };
  });
  expectNoOverlap(cursor.file.path, tensors);
  return tensors;
}

function readTensorInfo(cursor: GgufCursor, index: number, file: number): TensorInfo {
  const infoOffset = cursor.offset;
  const name = cursor.string(`the name of tensor ${index}`);
  const what = `tensor ${quoted(name)}`;
  const dimensions = cursor.u32(`the number of dimensions of ${what}`);
  if (dimensions > DIMENSIONS_MAX) {
    cursor.fail(
      `${what} has ${dimensions} dimensions, more than the ${DIMENSIONS_MAX} of the format`,
      infoOffset,
    );
  }
  const shape: number[] = [];
  for (let axis = 0; axis < dimensions; axis++) shape.unshift(cursor.count(`dimension ${axis} of ${what}`));
  const code = cursor.u32(`the type of ${what}`);
  const dtype = dtypeOfCode(code);
  if (dtype === undefined) {
    const type = `${ggmlTypeName(code)} (type ${code})`;
    throw unsupported(
      cursor.file.path,
      `${what} is stored as ${type}, which is not read; use another quantisation`,
    );
  }
  const bytes = tensorBytes(dtype, shape);
  if (typeof bytes === "string") cursor.fail(`${what} ${bytes}`, infoOffset);
  const offset = cursor.count(`the offset of ${what}`);
  return { name, dtype, shape, file, offset, bytes, infoOffset };
}
