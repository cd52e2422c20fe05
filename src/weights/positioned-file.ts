/** A regular file opened for positioned reads, with its size taken once. Reads outside it are named errors. */

import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { MistralError } from "../errors.ts";
import { malformed, systemReason } from "./malformed.ts";

export class PositionedFile {
  readonly path: string;
  readonly bytes: number;
  /** Device and inode: two paths with the same identity are one file. */
  readonly identity: string;
  readonly #descriptor: number;

  private constructor(path: string, bytes: number, identity: string, descriptor: number) {
    this.path = path;
    this.bytes = bytes;
    this.identity = identity;
    this.#descriptor = descriptor;
  }

  /** Opens `path`, runs `use`, closes. Throws `model_not_found` when it cannot be opened. */
  static use<T>(path: string, use: (file: PositionedFile) => T): T {
    let descriptor: number;
    try {
      descriptor = openSync(path, "r");
    } catch (error) {
      throw new MistralError("model_not_found", `cannot open ${path}: ${systemReason(error)}`, {
        cause: error,
      });
    }
    try {
      const status = fstatSync(descriptor);
      if (!status.isFile()) throw new MistralError("model_not_found", `${path} is not a regular file`);
      return use(new PositionedFile(path, status.size, `${status.dev}:${status.ino}`, descriptor));
    } finally {
      closeSync(descriptor);
    }
  }

  /** Fills `target` with the bytes from `offset` on. */
  readInto(target: Uint8Array, offset: number): void {
    let done = 0;
    while (done < target.length) {
      let count: number;
      try {
        count = readSync(this.#descriptor, target, done, target.length - done, offset + done);
      } catch (error) {
        throw malformed(this.path, offset + done, `cannot be read: ${systemReason(error)}`);
      }
      if (count === 0) throw malformed(this.path, offset + done, "the file became shorter while it was read");
      done += count;
    }
  }
}
