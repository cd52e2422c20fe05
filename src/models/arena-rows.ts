/**
 * Rows of a tensor in the activation arena, for the host: a view where it sees the arena, as on the CPU; else a copy,
 * brought when somebody looks after a step and not before.
 */

import type { Buffer } from "../backend/device.ts";

export class ArenaRows {
  readonly #arena: Buffer;
  readonly #byteOffset: number;
  readonly #width: number;
  readonly #values: Float32Array;
  /** Rows of the step that were not brought yet. */
  #missing = 0;

  /** `rowsMax` rows of `width` f32, from a byte of the arena on. */
  constructor(arena: Buffer, byteOffset: number, width: number, rowsMax: number) {
    this.#arena = arena;
    this.#byteOffset = byteOffset;
    this.#width = width;
    const elements = rowsMax * width;
    this.#values = arena.isVisible ? arena.f32(byteOffset, elements) : new Float32Array(elements);
  }

  /** A step has computed this many rows. */
  computed(rows: number): void {
    if (!this.#arena.isVisible) this.#missing = rows;
  }

  /** All rows; those past the last step's hold anything. The next step overwrites them. */
  get values(): Float32Array {
    if (this.#missing > 0) {
      const bytes = this.#missing * this.#width * Float32Array.BYTES_PER_ELEMENT;
      this.#arena.read(this.#byteOffset, new Uint8Array(this.#values.buffer, 0, bytes));
      this.#missing = 0;
    }
    return this.#values;
  }
}
