/** Brings the files of a checkpoint into memory that a device can read: mapped in place, or read in whole. */

import type { Buffer, Device } from "../backend/device.ts";
import { malformed } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";
import type { Checkpoint, WeightFile } from "./types.ts";

/** Large enough for full disk speed, small enough for steady progress. */
const WINDOW_BYTES = 32 << 20;

export interface LoadOptions {
  /** Map the files instead of reading them. */
  readonly mmap: boolean;
  /** Bytes of all files together; called after every step. */
  readonly onProgress?: (bytesDone: number, bytesTotal: number) => void;
}

export interface LoadedWeights {
  /** One per file of the checkpoint; a byte's offset in the buffer is its offset in the file. */
  readonly buffers: readonly Buffer[];
  /** Bytes that are mapped rather than held in memory of our own. */
  readonly mappedBytes: number;
  readonly seconds: number;
}

/**
 * Loads every file of `checkpoint`. The caller owns the buffers and frees them; when loading fails, those made so
 * far are freed here. Throws `invalid_model_file` when a file changed since it was opened.
 */
export function loadWeights(device: Device, checkpoint: Checkpoint, options: LoadOptions): LoadedWeights {
  const start = performance.now();
  const bytesTotal = checkpoint.files.reduce((sum, { bytes }) => sum + bytes, 0);
  const buffers: Buffer[] = [];
  let bytesDone = 0;
  const advance = (bytes: number): void => {
    bytesDone += bytes;
    options.onProgress?.(bytesDone, bytesTotal);
  };
  try {
    for (const file of checkpoint.files) {
      PositionedFile.use(file.path, (opened) => {
        expectUnchanged(file, opened);
        if (options.mmap) {
          buffers.push(device.mapFile(file.path, 0, file.bytes));
          advance(file.bytes);
        } else {
          const buffer = device.createBuffer(file.bytes, "bulk");
          buffers.push(buffer);
          readWhole(opened, buffer, advance);
        }
      });
    }
  } catch (error) {
    for (const buffer of buffers) buffer.free();
    throw error;
  }
  const seconds = (performance.now() - start) / 1000;
  return { buffers, mappedBytes: options.mmap ? bytesTotal : 0, seconds };
}

function expectUnchanged(file: WeightFile, opened: PositionedFile): void {
  if (opened.bytes === file.bytes) return;
  throw malformed(
    file.path,
    undefined,
    `the file had ${file.bytes} bytes when it was opened, now ${opened.bytes}`,
  );
}

function readWhole(file: PositionedFile, buffer: Buffer, advance: (bytes: number) => void): void {
  for (let offset = 0; offset < file.bytes; offset += WINDOW_BYTES) {
    const length = Math.min(WINDOW_BYTES, file.bytes - offset);
    file.readInto(buffer.u8(offset, length), offset);
    advance(length);
  }
}
