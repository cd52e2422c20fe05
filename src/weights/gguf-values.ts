/** The metadata values of a GGUF header: every type of the specification, lists in lists included. */

import { DeferredMap } from "./deferred-map.ts";
import type { GgufCursor } from "./gguf-cursor.ts";
import { quoted } from "./malformed.ts";
import type { GgufArray, GgufMetadata, GgufValue } from "./types.ts";

const ENTRIES_MAX = 1 << 16;
const KEY_BYTES_MAX = 65_535; // GGUF specification, "gguf_metadata_kv_t"
const NESTING_MAX = 8;
/** All lists of a file together. The largest vocabularies need 2 million; JavaScript needs 8 bytes for each. */
const ELEMENTS_MAX = 1 << 25;

const BOOLEAN = 7;
const STRING = 8;
const ARRAY = 9;
const BOOLEANS = [false, true] as const;
/** A list in a list: 4 bytes of type, 8 of length. */
const ARRAY_BYTES_MIN = 12;

type FixedValue = number | bigint | boolean;

interface FixedType {
  readonly bytes: number;
  /** All values of these bytes; the processors that Bun runs on order them as the file does. */
  readonly read: (bytes: ArrayBuffer) => (FixedValue | undefined)[];
}

/** The types of a fixed width, by their number in the file. A boolean that is neither 0 nor 1 reads as undefined. */
const FIXED_TYPES: ReadonlyMap<number, FixedType> = new Map<number, FixedType>([
  [0, { bytes: 1, read: (bytes) => listOf(new Uint8Array(bytes)) }],
  [1, { bytes: 1, read: (bytes) => listOf(new Int8Array(bytes)) }],
  [2, { bytes: 2, read: (bytes) => listOf(new Uint16Array(bytes)) }],
  [3, { bytes: 2, read: (bytes) => listOf(new Int16Array(bytes)) }],
  [4, { bytes: 4, read: (bytes) => listOf(new Uint32Array(bytes)) }],
  [5, { bytes: 4, read: (bytes) => listOf(new Int32Array(bytes)) }],
  [6, { bytes: 4, read: (bytes) => listOf(new Float32Array(bytes)) }],
  [BOOLEAN, { bytes: 1, read: (bytes) => Array.from(new Uint8Array(bytes), (byte) => BOOLEANS[byte]) }],
  [10, { bytes: 8, read: (bytes) => Array.from(new BigUint64Array(bytes), numberWhereExact) }],
  [11, { bytes: 8, read: (bytes) => Array.from(new BigInt64Array(bytes), numberWhereExact) }],
  [12, { bytes: 8, read: (bytes) => listOf(new Float64Array(bytes)) }],
]);

/** `Array.from` would walk the values with their iterator, which takes ten times as long. */
function listOf(values: ArrayLike<number>): number[] {
  return Array.prototype.slice.call(values);
}

/**
 * Reads `count` key-value pairs. 64-bit integers become numbers where a number holds them exactly, else bigints;
 * every other type reads as it is stored. Lists become values when they are asked for: most readers of a model want
 * nothing of its vocabulary.
 */
export function readMetadata(cursor: GgufCursor, count: number, countOffset: number): GgufMetadata {
  if (count > ENTRIES_MAX) {
    cursor.fail(`${count} metadata entries are more than the ${ENTRIES_MAX} allowed`, countOffset);
  }
  cursor.expectRoom(count, 13, "metadata entries", countOffset);
  const metadata = new DeferredMap<string, GgufValue>();
  const budget = { elements: ELEMENTS_MAX };
  for (let index = 0; index < count; index++) {
    const keyOffset = cursor.offset;
    const key = cursor.string(`the key of metadata entry ${index}`);
    if (key.length > KEY_BYTES_MAX)
      cursor.fail(`the key of metadata entry ${index} is ${key.length} long`, keyOffset);
    if (metadata.has(key)) cursor.fail(`metadata key ${quoted(key)} occurs twice`, keyOffset);
    const what = `the value of ${quoted(key)}`;
    const type = cursor.u32(`the type of ${quoted(key)}`);
    if (type === ARRAY) {
      const { length, make } = readArray(cursor, what, budget, 1);
      metadata.defer(key, length, make);
    } else metadata.set(key, type === STRING ? cursor.string(what) : readFixed(cursor, type, 1, what)()[0]!);
  }
  return metadata;
}

/** A list that was found to be whole. */
interface PendingList {
  readonly length: number;
  readonly make: () => GgufArray;
}

/** Checks a list, which costs next to nothing against making it. */
function readArray(
  cursor: GgufCursor,
  what: string,
  budget: { elements: number },
  depth: number,
): PendingList {
  if (depth > NESTING_MAX) cursor.fail(`${what} nests lists deeper than ${NESTING_MAX}`);
  const type = cursor.u32(`the element type of ${what}`);
  const countOffset = cursor.offset;
  const length = cursor.count(`the length of ${what}`);
  const bytesEach =
    type === STRING ? 8 : type === ARRAY ? ARRAY_BYTES_MIN : fixedType(cursor, type, what).bytes;
  cursor.expectRoom(length, bytesEach, `elements of ${what}`, countOffset);
  budget.elements -= length;
  if (budget.elements < 0) {
    cursor.fail(`the metadata lists hold more than ${ELEMENTS_MAX} elements (in ${what})`, countOffset);
  }
  if (type === STRING) return { length, make: cursor.strings(length, what) };
  if (type !== ARRAY) return { length, make: readFixed(cursor, type, length, what) };
  const lists: PendingList[] = [];
  for (let index = 0; index < length; index++) lists.push(readArray(cursor, what, budget, depth + 1));
  return { length, make: () => lists.map((list) => list.make()) };
}

function readFixed(cursor: GgufCursor, type: number, count: number, what: string): () => FixedValue[] {
  const start = cursor.offset;
  const { bytes, read } = fixedType(cursor, type, what);
  const stored = cursor.bytes(count * bytes, what);
  const values = (): (FixedValue | undefined)[] => read(stored());
  const bad = type === BOOLEAN ? values().indexOf(undefined) : -1;
  if (bad >= 0) cursor.fail(`${what} is a boolean that is neither 0 nor 1`, start + bad);
  return values as () => FixedValue[];
}

function fixedType(cursor: GgufCursor, type: number, what: string): FixedType {
  return FIXED_TYPES.get(type) ?? cursor.fail(`${what} has unknown metadata type ${type}`);
}

function numberWhereExact(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}
