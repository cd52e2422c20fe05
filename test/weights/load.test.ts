import { afterAll, describe, expect, test } from "bun:test";
import { appendFileSync, closeSync, ftruncateSync, openSync, writeSync } from "node:fs";
import { join } from "node:path";
import { Device } from "../../src/backend/device.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { loadWeights } from "../../src/weights/load.ts";
import type { Checkpoint } from "../../src/weights/types.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { writeGguf } from "../support/write-gguf.ts";
import { writeShardedSafetensors } from "../support/write-safetensors.ts";

const root = temporaryFolder("load");
const device = Device.open({ kind: "cpu", threads: 1 });
afterAll(() => device.close());

const bytesOf = (length: number, seed: number): Uint8Array =>
  new Uint8Array(length).map((_, index) => (index * 31 + seed) & 255);

const CONTENT = new Map([
  ["a", bytesOf(400, 1)],
  ["b", bytesOf(4000, 2)],
  ["c", bytesOf(40, 3)],
]);
const tensors = [...CONTENT].map(
  ([name, data]) => ({ name, dtype: "f32", shape: [data.length / 4], data }) as const,
);

function checkpoints(): [string, Checkpoint][] {
  const gguf = join(root, "m.gguf");
  writeGguf(gguf, { metadata: {}, tensors });
  const folder = join(root, "shards");
  writeShardedSafetensors(folder, {}, [tensors.slice(0, 2), tensors.slice(2)]);
  return [
    ["GGUF", openCheckpoint(gguf)],
    ["sharded safetensors", openCheckpoint(folder)],
  ];
}

describe.each(checkpoints())("%s", (_, checkpoint) => {
  test.each([true, false])("with mmap %p every tensor has the bytes of its file", (mmap) => {
    const total = checkpoint.files.reduce((sum, { bytes }) => sum + bytes, 0);
    const progress: [number, number][] = [];
    const loaded = loadWeights(device, checkpoint, { mmap, onProgress: (...step) => progress.push(step) });
    expect(loaded.buffers.map(({ bytes }) => bytes)).toEqual(checkpoint.files.map(({ bytes }) => bytes));
    expect(loaded.mappedBytes).toBe(mmap ? total : 0);
    expect(progress.at(-1)).toEqual([total, total]);
    expect(checkpoint.tensors.size).toBe(CONTENT.size);
    for (const { name, file, offset, bytes } of checkpoint.tensors.values()) {
      expect(loaded.buffers[file]!.u8(offset, bytes)).toEqual(CONTENT.get(name)!);
    }
    for (const buffer of loaded.buffers) buffer.free();
  });
});

test("a file of several windows is read whole, without a seam", () => {
  const path = join(root, "large");
  const MiB = 1 << 20;
  const bytes = 70 * MiB + 3;
  const marks = [0, 32 * MiB - 1, 32 * MiB, 64 * MiB - 1, 64 * MiB, bytes - 1];
  const descriptor = openSync(path, "w");
  ftruncateSync(descriptor, bytes);
  for (const [index, at] of marks.entries()) writeSync(descriptor, Uint8Array.of(index + 1), 0, 1, at);
  closeSync(descriptor);
  const checkpoint: Checkpoint = {
    format: "gguf",
    files: [{ path, bytes }],
    tensors: new Map(),
    metadata: new Map(),
  };
  const steps: number[] = [];
  const { buffers } = loadWeights(device, checkpoint, {
    mmap: false,
    onProgress: (done) => steps.push(done),
  });
  expect(steps).toEqual([32 * MiB, 64 * MiB, bytes]);
  expect(marks.map((at) => buffers[0]!.u8(at, 1)[0])).toEqual([1, 2, 3, 4, 5, 6]);
  expect(buffers[0]!.u8(32 * MiB + 1, MiB).every((byte) => byte === 0)).toBe(true);
  buffers[0]!.free();
});

test.each([true, false])("a file that changed since it was opened is refused, mmap %p", (mmap) => {
  const path = join(root, "changing.gguf");
  writeGguf(path, { metadata: {}, tensors });
  const checkpoint = openCheckpoint(path);
  appendFileSync(path, "more");
  expectMistralError(
    () => loadWeights(device, checkpoint, { mmap }),
    "invalid_model_file",
    path,
    "when it was opened",
  );
});
