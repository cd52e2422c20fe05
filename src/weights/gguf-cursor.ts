/**
 * Reads the header of a GGUF file from front to back: a window of the file that grows as the cursor advances, so
 * that the tensor data behind the header is left alone. Owns bounds, byte order and the limits on what a header
 * may cost; knows nothing of what the fields mean.
 */

import { malformed } from "./malformed.ts";
import type { PositionedFile } from "./positioned-file.ts";

/** Holds the header of a vocabulary of 50,000 tokens: growing costs a copy. */
const FIRST_WINDOW_BYTES = 2 << 20;
/** The largest header met in practice is 16 MB (a 262k-token vocabulary with merges); the rest is damage. */
const HEADER_BYTES_MAX = 256 << 20;
const STRING_BYTES_MAX = 32 << 20;

export class GgufCursor {
  readonly file: PositionedFile;
  /** Byte offset of the next field. */
  offset = 0;
  #window: Buffer = Buffer.alloc(0);
  #view = new DataView(this.#window.buffer, 0, 0);

  constructor(file: PositionedFile) {
    this.file = file;
  }

  /** Bytes between the cursor and the end of the file. */
  get remaining(): number {
    return this.file.bytes - this.offset;
  }

  fail(reason: string, offset: number = this.offset): never {
    throw malformed(this.file.path, offset, reason);
  }

  u32(what: string): number {
    const at = this.#take(4, what);
    return this.#view.getUint32(at, true);
  }

  /** An unsigned 64-bit number that counts or measures: beyond 2^53 it is damage. */
  count(what: string): number {
    const at = this.#take(8, what);
    const value = this.#view.getUint32(at, true) + this.#view.getUint32(at + 4, true) * 2 ** 32;
    if (!Number.isSafeInteger(value))
      this.fail(`${what} is ${this.#view.getBigUint64(at, true)}, which is absurd`, at);
    return value;
  }

  string(what: string): string {
    const at = this.offset;
    const length = this.count(`the length of ${what}`);
    if (length > STRING_BYTES_MAX) {
      this.fail(`${what} is said to be ${length} bytes long, more than the ${STRING_BYTES_MAX} allowed`, at);
    }
    const start = this.#take(length, what);
    return this.#window.toString("utf8", start, start + length);
  }

  /**
   * Checks a list of `count` strings and gives what decodes them. The hot loop of a load, half a million strings
   * for a large vocabulary: those that lie whole in the window are stepped over at once, the others and the bad
   * ones go through `string`.
   */
  strings(count: number, what: string): () => string[] {
    const first = this.offset;
    let left = count;
    while (left > 0) {
      const [stepped, end] = stepOver(this.#window, this.offset, left);
      this.offset = end;
      left -= stepped;
      if (left === 0) break;
      // One that the window does not hold yet, or that is too long.
      this.string(what);
      left--;
    }
    return () => this.#decode(first, count);
  }

  /** Steps over so many bytes and gives what copies them. */
  bytes(count: number, what: string): () => ArrayBuffer {
    const start = this.#take(count, what);
    return () => new Uint8Array(this.#window.subarray(start, start + count)).buffer;
  }

  /** Fails unless `count` items of at least `bytesEach` fit between the cursor and the end of the file. */
  expectRoom(count: number, bytesEach: number, what: string, offset: number): void {
    if (count * bytesEach > this.remaining) {
      this.fail(`${count} ${what} cannot fit into the ${this.remaining} bytes left in the file`, offset);
    }
  }

  /** `count` strings that were found to be whole, from `offset` on. */
  #decode(offset: number, count: number): string[] {
    const strings: string[] = [];
    let at = offset;
    for (let index = 0; index < count; index++) {
      const start = at + 8;
      at = start + this.#view.getUint32(start - 8, true);
      strings.push(this.#window.toString("utf8", start, at));
    }
    return strings;
  }

  /** Advances by `bytes` and returns where they start in the window. */
  #take(bytes: number, what: string): number {
    const start = this.offset;
    const end = start + bytes;
    if (end > this.#window.length) this.#grow(end, what);
    this.offset = end;
    return start;
  }

  #grow(end: number, what: string): void {
    if (end > this.file.bytes) {
      this.fail(`the file ends at byte ${this.file.bytes}, inside ${what}, which reaches to byte ${end}`);
    }
    if (end > HEADER_BYTES_MAX) {
      this.fail(`the header is longer than the ${HEADER_BYTES_MAX} bytes allowed (in ${what})`);
    }
    const bytes = Math.min(Math.max(end, this.#window.length * 2, FIRST_WINDOW_BYTES), this.file.bytes);
    const grown = Buffer.allocUnsafeSlow(bytes);
    grown.set(this.#window);
    this.file.readInto(grown.subarray(this.#window.length), this.#window.length);
    this.#window = grown;
    this.#view = new DataView(grown.buffer, grown.byteOffset, grown.byteLength);
  }
}

/**
 * Steps over strings from `at` on, `count` at most, as long as they lie whole in the window and are shorter than
 * 16 MB; tells how many they are and where the last one ends. Small, so that it is soon compiled.
 */
function stepOver(window: Uint8Array, at: number, count: number): readonly [stepped: number, end: number] {
  const length = window.length;
  for (let index = 0; index < count; index++) {
    const start = at + 8;
    if (start > length) return [index, at];
    const high = window[at + 3]! | window[at + 4]! | window[at + 5]! | window[at + 6]! | window[at + 7]!;
    const end = start + (window[at]! | (window[at + 1]! << 8) | (window[at + 2]! << 16));
    if (high !== 0 || end > length) return [index, at];
    at = end;
  }
  return [count, at];
}
