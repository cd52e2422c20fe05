/** A checkpoint's matrices as f32, whatever type they are stored in: rows looked up by the op that embeds tokens. */

import type { Buffer, Device } from "../../../../backend/device.ts";
import { ARENA_SLOT, ProgramBuilder } from "../../../../graph/builder.ts";
import type { Checkpoint, TensorEntry } from "../../../../weights/types.ts";

/** Elements that are computed at a time. */
const CHUNK_ELEMENTS = 1 << 20;

export class MatrixReader {
  readonly #device: Device;
  readonly #files: readonly Buffer[];

  constructor(device: Device, checkpoint: Checkpoint) {
    this.#device = device;
    this.#files = checkpoint.files.map(({ path, bytes }) => device.mapFile(path, 0, bytes));
  }

  /** Some rows after the others, f32 `[rows, columns]`; each array is only good until the next is asked for. */
  *rows({ name, dtype, shape, file, offset }: TensorEntry): Generator<Float32Array> {
    const [height = 1, columns = 1] = shape;
    const chunk = Math.max(1, Math.min(height, Math.floor(CHUNK_ELEMENTS / columns)));
    const builder = new ProgramBuilder();
    const dimension = builder.dimension("rows", chunk);
    const slot = builder.buffer("file", this.#files[file]!.bytes);
    const table = builder.bind(name, dtype, [height, columns], { slot, byteOffset: offset, readOnly: true });
    const idSlot = builder.buffer("ids", chunk * 4);
    const ids = builder.bind("ids", "i32", [dimension], { slot: idSlot, byteOffset: 0, readOnly: true });
    const outSlot = builder.buffer("out", chunk * columns * 4);
    const out = builder.bind("out", "f32", [dimension, columns], { slot: outSlot, byteOffset: 0 });
    builder.record("embed", { out, table, ids }, { scale: 1 });
    const { words, plan } = builder.finish();
    const own = [plan.bytes, chunk * 4, chunk * columns * 4].map((bytes) =>
      this.#device.createBuffer(Math.max(bytes, 64)),
    ) as [Buffer, Buffer, Buffer];
    const [arena, idBuffer, outBuffer] = own;
    const buffers: Buffer[] = [];
    buffers[ARENA_SLOT] = arena;
    buffers[slot] = this.#files[file]!;
    buffers[idSlot] = idBuffer;
    buffers[outSlot] = outBuffer;
    const program = this.#device.createProgram(words, buffers);
    try {
      for (let first = 0; first < height; first += chunk) {
        const count = Math.min(chunk, height - first);
        const list = idBuffer.i32(0, count);
        for (let row = 0; row < count; row++) list[row] = first + row;
        program.run([count]);
        yield outBuffer.f32(0, count * columns);
      }
    } finally {
      program.free();
      for (const buffer of own) buffer.free();
    }
  }

  free(): void {
    for (const file of this.#files) file.free();
  }
}
