/** What of a file goes to a device, where tensors lie there, and what is told on the way. */

import { expect, test } from "bun:test";
import { appendFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { MistralError } from "../../src/errors.ts";
import type { Checkpoint, TensorEntry } from "../../src/weights/types.ts";
import { readTensor, tensorRegions, uploadWeights } from "../../src/weights/upload.ts";
import { openCudaLevels } from "../kernels/cuda-devices.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

type Place = Pick<TensorEntry, "file" | "offset" | "bytes">;

function checkpointOf(files: Checkpoint["files"], places: readonly Place[]): Checkpoint {
  const tensors = new Map<string, TensorEntry>();
  places.forEach((place, index) => {
    const name = `t${index}`;
    tensors.set(name, { name, dtype: "f32", shape: [place.bytes / 4], ...place });
  });
  return { files, tensors, format: "safetensors", folder: "", config: {} };
}

test("a region holds all tensors of its file, and most bytes lie at multiples of 16", () => {
  const files = ["a", "b", "c", "d"].map((path) => ({ path, bytes: 10_000 }));
  const checkpoint = checkpointOf(files, [
    { file: 0, offset: 104, bytes: 4 },
    { file: 0, offset: 108, bytes: 1600 },
    { file: 0, offset: 1708, bytes: 3200 },
    { file: 1, offset: 64, bytes: 640 },
    { file: 3, offset: 4, bytes: 4 },
    { file: 3, offset: 8, bytes: 400 },
  ]);
  expect(tensorRegions(checkpoint)).toEqual([
    { offset: 92, bytes: 1708 + 3200 - 92 },
    { offset: 64, bytes: 640 },
    { offset: 0, bytes: 1 },
    // There is nothing before the file.
    { offset: 0, bytes: 408 },
  ]);
});

test("regions arrive whole, and tensors are read from their files", () => {
  const folder = temporaryFolder("upload");
  const contents = [3000, 20 << 20].map((bytes, file) =>
    Uint8Array.from({ length: bytes }, (_, index) => (index * 7 + file) & 255),
  );
  const files = contents.map((bytes, file) => {
    const path = join(folder, `${file}.bin`);
    writeFileSync(path, bytes);
    return { path, bytes: bytes.length };
  });
  const checkpoint = checkpointOf(files, [
    { file: 0, offset: 40, bytes: 2000 },
    { file: 1, offset: 1000, bytes: (20 << 20) - 1000 },
  ]);
  expect(readTensor(checkpoint, checkpoint.tensors.get("t0")!)).toEqual(contents[0]!.subarray(40, 2040));
  const regions = tensorRegions(checkpoint);
  for (const { devices } of openCudaLevels()) {
    const told: [number, number][] = [];
    const { buffers, mappedBytes } = uploadWeights(devices[0], checkpoint, regions, (...bytes) =>
      told.push(bytes),
    );
    const total = regions[0]!.bytes + regions[1]!.bytes;
    expect(told).toEqual([
      [2000, total],
      [2000 + (16 << 20), total],
      [total, total],
    ]);
    expect(mappedBytes).toBe(0);
    buffers.forEach((buffer, file) => {
      const { offset, bytes } = regions[file]!;
      const back = new Uint8Array(bytes);
      buffer.read(0, back);
      expect(Bun.hash(back)).toBe(Bun.hash(contents[file]!.subarray(offset, offset + bytes)));
      buffer.free();
    });
    const free = devices[0].memory().free;
    appendFileSync(files[1]!.path, "more");
    let failure: unknown;
    try {
      uploadWeights(devices[0], checkpoint, regions);
    } catch (error) {
      failure = error;
    }
    expect((failure as MistralError).code).toBe("invalid_model_file");
    expect((failure as MistralError).message).toContain("when it was opened, now");
    // The file before it was given back.
    expect(devices[0].memory().free).toBe(free);
  }
});
