/** Brings the tensors of a checkpoint into memory that only the device sees. */

import type { Buffer, Device } from "../backend/device.ts";
import type { LoadedWeights } from "./load.ts";
import { malformed } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";
import type { Checkpoint, TensorEntry } from "./types.ts";

/** The part of a file that holds its tensors: it becomes a buffer, in which a tensor lies `offset` earlier. */
export interface FileRegion {
  readonly offset: number;
  readonly bytes: number;
}

/** What kernels read at once. */
const ALIGNMENT = 16;

/**
 * The region of each file. Buffers begin at multiples of `ALIGNMENT`, files put their tensors where they like; a
 * region begins so that as many bytes as possible belong to tensors that kernels can read in wide pieces.
 */
export function tensorRegions({ files, tensors }: Checkpoint): FileRegion[] {
  const entries = [...tensors.values()];
  return files.map((_, index) => {
    const own = entries.filter(({ file, bytes }) => file === index && bytes > 0);
    // A buffer must have a byte.
    if (own.length === 0) return { offset: 0, bytes: 1 };
    const first = own.reduce((least, { offset }) => Math.min(least, offset), Number.POSITIVE_INFINITY);
    const end = own.reduce((most, { offset, bytes }) => Math.max(most, offset + bytes), 0);
    const weight = new Float64Array(ALIGNMENT);
    for (const { offset, bytes } of own) weight[offset % ALIGNMENT] = weight[offset % ALIGNMENT]! + bytes;
    const best = weight.indexOf(Math.max(...weight));
    const offset = Math.max(0, first - ((first - best + ALIGNMENT) % ALIGNMENT));
    return { offset, bytes: end - offset };
  });
}

/**
 * Copies the region of every file. The caller owns the buffers and frees them; when it fails, those made so far are
 * freed here. `onProgress` is told bytes of all regions together.
 */
export function uploadWeights(
  device: Device,
  { files }: Checkpoint,
  regions: readonly FileRegion[],
  onProgress: (bytesDone: number, bytesTotal: number) => void = () => {},
): LoadedWeights {
  const start = performance.now();
  const bytesTotal = regions.reduce((sum, { bytes }) => sum + bytes, 0);
  const buffers: Buffer[] = [];
  let before = 0;
  try {
    for (const [index, { offset, bytes }] of regions.entries()) {
      const file = files[index]!;
      PositionedFile.use(file.path, (opened) => {
        if (opened.bytes === file.bytes) return;
        const reason = `the file had ${file.bytes} bytes when it was opened, now ${opened.bytes}`;
        throw malformed(file.path, undefined, reason);
      });
      buffers.push(
        device.uploadFile(file.path, offset, bytes, (done) => onProgress(before + done, bytesTotal)),
      );
      before += bytes;
    }
  } catch (error) {
    for (const buffer of buffers) buffer.free();
    throw error;
  }
  return { buffers, mappedBytes: 0, seconds: (performance.now() - start) / 1000 };
}

/** The stored bytes of one tensor, from its file. */
export function readTensor({ files }: Checkpoint, { file, offset, bytes }: TensorEntry): Uint8Array {
  return PositionedFile.use(files[file]!.path, (opened) => {
    const target = new Uint8Array(bytes);
    opened.readInto(target, offset);
    return target;
  });
}
