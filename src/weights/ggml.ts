/**
 * Reads the header of one GGML file of the Llama family, what llama.cpp wrote before GGUF: hyperparameters,
 * vocabulary and the place of every tensor (llama.cpp of August 2023, `llama_file_loader`). Three containers: `ggml`
 * without a version, `ggmf` version 1, `ggjt` versions 1 to 3. The tensor data is never read.
 */

import { DTYPES, dtypeOfCode, type FileDType } from "../backend/dtype.ts";
import { GgmlCursor } from "./ggml-cursor.ts";
import { ggmlTypeName } from "./ggml-types.ts";
import { quoted, unsupported } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";
import { tensorBytes } from "./tensor-ranges.ts";
import type { TensorEntry } from "./types.ts";

interface Container {
  readonly name: "ggml" | "ggmf" | "ggjt";
  /** The versions there are; a container without any stores none. */
  readonly versions: readonly number[];
  readonly hasScores: boolean;
  /** Where tensor data begins, in bytes. */
  readonly alignment: number;
}

/** By the magic number, read as a little-endian one. */
const CONTAINERS: Readonly<Record<number, Container>> = {
  1734831468: { name: "ggml", versions: [], hasScores: false, alignment: 1 },
  1734831462: { name: "ggmf", versions: [1], hasScores: true, alignment: 1 },
  1734830708: { name: "ggjt", versions: [1, 2, 3], hasScores: true, alignment: 32 },
};

/**
 * The version of `ggjt` since which blocks of a type have the layout that they have today. Older files hold blocks of
 * other sizes or orders under the same type number.
 */
const LAYOUT_SINCE: Readonly<Partial<Record<FileDType, number>>> = {
  q4_0: 3,
  q4_1: 3,
  q5_0: 2,
  q5_1: 2,
  q8_0: 3,
};
const LAYOUT_CURRENT = 3;

const LIMITS = {
  vocabulary: 1 << 24,
  width: 1 << 20,
  heads: 1 << 14,
  layers: 1024,
  tensors: 1 << 16,
  nameBytes: 1024,
  tokenBytes: 1 << 15,
} as const;

export interface GgmlHyperparameters {
  readonly vocabularySize: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  /** Elements of a head that are rotated. */
  readonly rotatedDims: number;
}

export interface GgmlFile {
  readonly path: string;
  readonly bytes: number;
  readonly container: Container["name"];
  /** 0 for the container that has none. */
  readonly version: number;
  readonly hyperparameters: GgmlHyperparameters;
  /** The bytes that each token stands for. */
  readonly tokens: readonly Uint8Array[];
  /** One for each token; undefined where the container has none. */
  readonly scores: readonly number[] | undefined;
  /** In the order of the file, under its own names. */
  readonly tensors: readonly TensorEntry[];
}

/** Whether the file at `path` begins as one of these containers does. Throws `model_not_found` when it cannot be opened. */
export function isGgmlFile(path: string): boolean {
  return PositionedFile.use(path, (file) => {
    if (file.bytes < 4) return false;
    return CONTAINERS[new GgmlCursor(file).u32("the magic number")] !== undefined;
  });
}

/** Reads the header of the GGML file at `path`. Throws `model_not_found`, `invalid_model_file` or `unsupported_model`. */
export function readGgmlFile(path: string): GgmlFile {
  return PositionedFile.use(path, (file) => {
    const cursor = new GgmlCursor(file);
    const magic = cursor.u32("the magic number");
    const container = CONTAINERS[magic];
    if (container === undefined) {
      return cursor.fail(`not a GGML file: it begins with 0x${magic.toString(16).padStart(8, "0")}`, 0);
    }
    const version = readVersion(cursor, container);
    const hyperparameters = readHyperparameters(cursor);
    const { tokens, scores } = readVocabulary(cursor, hyperparameters.vocabularySize, container.hasScores);
    const tensors = readTensors(cursor, container, version);
    const { name } = container;
    return { path, bytes: file.bytes, container: name, version, hyperparameters, tokens, scores, tensors };
  });
}

function readVersion(cursor: GgmlCursor, { name, versions }: Container): number {
  if (versions.length === 0) return 0;
  const version = cursor.u32("the version");
  if (versions.includes(version)) return version;
  const read = `version${versions.length > 1 ? "s" : ""} ${versions.join(", ")}`;
  throw unsupported(
    cursor.file.path,
    `a ${name} file of version ${version}; ${read} of it can be read. Use a GGUF file of the model`,
  );
}

/** Seven numbers. Files of other families have others in the same place, which do not fit each other. */
function readHyperparameters(cursor: GgmlCursor): GgmlHyperparameters {
  const start = cursor.offset;
  const field = (what: string, minimum: number, maximum: number): number => {
    const at = cursor.offset;
    const value = cursor.u32(what);
    if (value >= minimum && value <= maximum) return value;
    const llama = "only models of the Llama family are read from GGML files";
    return cursor.fail(`${what} is ${value}, not between ${minimum} and ${maximum}; ${llama}`, at);
  };
  const vocabularySize = field("the size of the vocabulary", 1, LIMITS.vocabulary);
  const width = field("the width", 1, LIMITS.width);
  field("the multiple of the feed-forward width", 0, 0xffffffff); // the tensors say the width itself
  const heads = field("the number of heads", 1, LIMITS.heads);
  const layers = field("the number of layers", 1, LIMITS.layers);
  const rotatedDims = field("the number of rotated elements", 2, LIMITS.width);
  field("the file type", 0, 0xffffffff); // each tensor says its own type
  if (width % heads !== 0 || rotatedDims > width / heads || rotatedDims % 2 !== 0) {
    const numbers = `width ${width}, ${heads} heads and ${rotatedDims} rotated elements of a head`;
    cursor.fail(`${numbers} do not fit each other; only models of the Llama family are read`, start);
  }
  return { vocabularySize, width, heads, layers, rotatedDims };
}

function readVocabulary(
  cursor: GgmlCursor,
  size: number,
  hasScores: boolean,
): Pick<GgmlFile, "tokens" | "scores"> {
  const bytesEach = hasScores ? 8 : 4;
  if (size * bytesEach > cursor.remaining) {
    cursor.fail(`${size} tokens cannot fit into the ${cursor.remaining} bytes left in the file`);
  }
  const tokens: Uint8Array[] = [];
  const scores: number[] = [];
  for (let token = 0; token < size; token++) {
    const at = cursor.offset;
    const length = cursor.u32(`the length of token ${token}`);
    if (length > LIMITS.tokenBytes) {
      cursor.fail(`token ${token} is said to be ${length} bytes long, more than ${LIMITS.tokenBytes}`, at);
    }
    tokens.push(Uint8Array.from(cursor.bytes(length, `token ${token}`)));
    if (!hasScores) continue;
    const score = cursor.f32(`the score of token ${token}`);
    if (Number.isNaN(score)) cursor.fail(`the score of token ${token} is not a number`, at);
    scores.push(score);
  }
  return { tokens, scores: hasScores ? scores : undefined };
}

function readTensors(cursor: GgmlCursor, container: Container, version: number): TensorEntry[] {
  const tensors: TensorEntry[] = [];
  const names = new Set<string>();
  while (cursor.remaining > 0) {
    const at = cursor.offset;
    if (tensors.length === LIMITS.tensors) cursor.fail(`more than ${LIMITS.tensors} tensors`, at);
    const tensor = readTensor(cursor, container, version);
    if (names.has(tensor.name)) cursor.fail(`tensor name ${quoted(tensor.name)} occurs twice`, at);
    names.add(tensor.name);
    tensors.push(tensor);
    cursor.offset = tensor.offset + tensor.bytes;
  }
  return tensors;
}

function readTensor(cursor: GgmlCursor, container: Container, version: number): TensorEntry {
  const start = cursor.offset;
  const dimensions = cursor.u32("the number of dimensions of a tensor");
  const nameBytes = cursor.u32("the length of a tensor's name");
  const code = cursor.u32("the type of a tensor");
  if (dimensions < 1 || dimensions > 2) {
    cursor.fail(`a tensor has ${dimensions} dimensions; those of the Llama family have 1 or 2`, start);
  }
  if (nameBytes < 1 || nameBytes > LIMITS.nameBytes) {
    cursor.fail(`a tensor's name has ${nameBytes} bytes, not 1 to ${LIMITS.nameBytes}`, start);
  }
  const shape: number[] = [];
  for (let axis = 0; axis < dimensions; axis++) shape.unshift(cursor.u32(`dimension ${axis} of a tensor`));
  const name = cursor.bytes(nameBytes, "a tensor's name").toString("utf8");
  const dtype = readType(cursor, name, code, container, version);
  const bytes = tensorBytes(dtype, shape);
  if (typeof bytes === "string") return cursor.fail(`tensor ${quoted(name)} ${bytes}`, start);
  const offset = Math.ceil(cursor.offset / container.alignment) * container.alignment;
  if (offset + bytes > cursor.file.bytes) {
    const range = `bytes ${offset} to ${offset + bytes}`;
    cursor.fail(`tensor ${quoted(name)} needs ${range}; the file ends at ${cursor.file.bytes}`, start);
  }
  return { name, dtype, shape, file: 0, offset, bytes };
}

/** The type, if its blocks in a file of this age are those of today. */
function readType(
  cursor: GgmlCursor,
  name: string,
  code: number,
  { name: container }: Container,
  version: number,
): FileDType {
  const dtype = dtypeOfCode(code);
  const { path } = cursor.file;
  if (dtype === undefined) {
    const type = `${ggmlTypeName(code)} (type ${code})`;
    throw unsupported(
      path,
      `tensor ${quoted(name)} is stored as ${type}, which is not read; use a GGUF file`,
    );
  }
  if (DTYPES[dtype].blockElements === 1) return dtype;
  const age = container === "ggjt" ? version : 0;
  const since = LAYOUT_SINCE[dtype] ?? LAYOUT_CURRENT;
  if (age >= since) return dtype;
  const file =
    version === 0 ? `a ${container} file, which has no version` : `a ${container} file of version ${version}`;
  const reason = `${file}; its ${dtype} blocks (tensor ${quoted(name)}) are laid out otherwise than since ggjt version ${since}`;
  throw unsupported(path, `${reason}. Use a GGUF file of the model, or quantise its original weights anew`);
}
