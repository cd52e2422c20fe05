/**
 * Reads fields of a GGML file, whose tensor headers stand between the tensors' data: a window that moves with the
 * cursor, so that the data is stepped over and not read. Owns bounds and byte order; knows nothing of the fields.
 */

import { malformed } from "./malformed.ts";
import type { PositionedFile } from "./positioned-file.ts";

const WINDOW_BYTES = 64 << 10;

export class GgmlCursor {
  readonly file: PositionedFile;
  /** Byte offset of the next field. */
  offset = 0;
  #window: Buffer = Buffer.alloc(0);
  #windowStart = 0;

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
    return this.bytes(4, what).readUInt32LE(0);
  }

  f32(what: string): number {
    return this.bytes(4, what).readFloatLE(0);
  }

  /** A view of the next `count` bytes, good until the next read. `count` is at most the window. */
  bytes(count: number, what: string): Buffer {
    if (count > this.remaining) {
      const end = this.offset + count;
      this.fail(`the file ends at byte ${this.file.bytes}, inside ${what}, which reaches to byte ${end}`);
    }
    let start = this.offset - this.#windowStart;
    if (start < 0 || start + count > this.#window.length) {
      this.#window = Buffer.allocUnsafe(Math.min(WINDOW_BYTES, this.remaining));
      this.file.readInto(this.#window, this.offset);
      this.#windowStart = this.offset;
      start = 0;
    }
    this.offset += count;
    return this.#window.subarray(start, start + count);
  }
}
