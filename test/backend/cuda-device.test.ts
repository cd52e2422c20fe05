/** What a CUDA device promises besides arithmetic: its memory, its refusals, and what happens after a failure. */

import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Device } from "../../src/backend/device.ts";
import { emulatedCudaDriver, isCudaBuilt } from "../../src/backend/library.ts";
import { embed, gatherRows, rmsNorm } from "../../src/graph/record.ts";
import { kvWrite } from "../../src/graph/record-attention.ts";
import { openCudaLevels } from "../kernels/cuda-devices.ts";
import { Recording } from "../kernels/harness.ts";

const level = openCudaLevels()[0];
const folder = mkdtempSync(join(tmpdir(), "cuda-"));
afterAll(() => rmSync(folder, { recursive: true }));

test("the library is built wherever its tests run", () => {
  if (process.platform !== "linux") return expect(isCudaBuilt()).toBe(false);
  expect(isCudaBuilt()).toBe(true);
  expect(emulatedCudaDriver()).toBeDefined();
  expect(level).toBeDefined();
});

if (level !== undefined) {
  const [device, second] = level.devices;

  describe("device", () => {
    test("says what it is", () => {
      expect(device.info.kind).toBe("cuda");
      expect(device.info.instructionSet).toMatch(/^sm_\d+$/);
      expect(device.info.threads).toBe(0);
      expect(device.info.multiprocessors).toBeGreaterThan(0);
      const { free, total } = device.memory();
      expect(total).toBeGreaterThan(0);
      expect(free).toBeLessThanOrEqual(total);
    });

    test("is described without being opened", () => {
      const { info, memory } = Device.describeCuda(0);
      expect(info).toEqual(device.info);
      expect(memory).toEqual({ free: 0, total: device.memory().total });
      const count = Device.cudaCount();
      expect(() => Device.describeCuda(count)).toThrow(`CUDA device ${count} does not exist`);
    });

    test("that does not exist is refused with those that do", () => {
      const count = Device.cudaCount();
      expect(() => Device.open({ kind: "cuda", index: count })).toThrow(
        `CUDA device ${count} does not exist; 0 to ${count - 1} do`,
      );
      expect(() => Device.open({ kind: "cuda", index: -1 })).toThrow("-1 is not the index of a device");
    });
  });

  describe("buffers", () => {
    test.each(["device", "host"] as const)("of kind %s start zeroed, and are written and read", (kind) => {
      const buffer = device.createBuffer(100_000, kind);
      const back = new Uint8Array(100_000).fill(1);
      buffer.read(0, back);
      expect(back.every((byte) => byte === 0)).toBe(true);
      buffer.write(
        99_990,
        Uint8Array.from({ length: 10 }, (_, i) => i),
      );
      const end = new Uint8Array(5);
      buffer.read(99_995, end);
      expect([...end]).toEqual([5, 6, 7, 8, 9]);
      expect(() => buffer.write(99_991, new Uint8Array(10))).toThrow(RangeError);
      expect(() => buffer.read(-1, new Uint8Array(1))).toThrow(RangeError);
      buffer.free();
    });

    test("of the device have no view, those of the host do", () => {
      const hidden = device.createBuffer(64);
      expect(hidden.isVisible).toBe(false);
      expect(() => hidden.u8(0, 1)).toThrow("which the host cannot see; use read and write");
      const shared = device.createBuffer(64, "host");
      shared.i32(8, 1)[0] = 77;
      const back = new Int32Array(1);
      shared.read(8, new Uint8Array(back.buffer));
      expect(back[0]).toBe(77);
      hidden.free();
      shared.free();
    });

    test("take a file from any offset, in pieces when it is long", () => {
      const path = join(folder, "weights.bin");
      const bytes = 40 << 20;
      const contents = new Uint32Array(bytes / 4);
      for (let i = 0; i < contents.length; i++) contents[i] = Math.imul(i, 2654435761);
      writeFileSync(path, contents);
      const whole = new Uint8Array(contents.buffer);
      const offset = 4099;
      const buffer = device.mapFile(path, offset, bytes - offset);
      const back = new Uint8Array(bytes - offset);
      buffer.read(0, back);
      expect(Bun.hash(back)).toBe(Bun.hash(whole.subarray(offset)));
      expect(() => buffer.write(0, new Uint8Array(1))).toThrow("read-only");
      buffer.free();
      const steps: number[] = [];
      const told = device.uploadFile(path, offset, bytes - offset, (done) => steps.push(done));
      told.read(0, back.fill(0));
      expect(Bun.hash(back)).toBe(Bun.hash(whole.subarray(offset)));
      expect(steps).toEqual([16 << 20, 32 << 20, bytes - offset]);
      expect(() => told.write(0, new Uint8Array(1))).toThrow("read-only");
      told.free();
    });

    test("that cannot be made say why", () => {
      const path = join(folder, "short.bin");
      writeFileSync(path, "short");
      expect(() => device.mapFile(path, 2, 10)).toThrow("has 5 bytes; cannot map 10 from byte 2");
      expect(() => device.mapFile(join(folder, "none"), 0, 1)).toThrow("NOENT");
      expect(() => device.createBuffer(0)).toThrow("0 bytes");
      expect(() => device.wrap(new Uint8Array(4))).toThrow("cannot use memory of the caller");
      const { free } = device.memory();
      expect(() => device.createBuffer(2 ** 45)).toThrow(
        `the CUDA device has ${free} bytes free of ${device.memory().total}; ${2 ** 45} are needed`,
      );
      // Having too little memory is not a failure of the device.
      device.createBuffer(64).free();
      expect(device.memory().free).toBe(free);
    });
  });

  describe("programs", () => {
    test("with buffers of another device are refused", () => {
      const recording = new Recording();
      const x = recording.f32("x", [4, 8], new Float32Array(32));
      rmsNorm(recording.program, {
        name: "out",
        x,
        weight: recording.f32("w", [8], new Float32Array(8)),
        epsilon: 1e-5,
        weightOffset: 0,
      });
      const { words, plan } = recording.program.finish();
      const buffers = [device.createBuffer(plan.bytes), second.createBuffer(128), device.createBuffer(32)];
      expect(() => device.createProgram(words, buffers)).toThrow("buffer 1 belongs to another device");
      for (const buffer of buffers) buffer.free();
    });

    test("are not re-laid", () => {
      const { words } = new Recording().program.finish();
      const buffer = device.createBuffer(64);
      expect(() => device.createProgram(words, [buffer], { repack: true })).toThrow("weights as they lie");
      buffer.free();
    });

    test("run on one device with the inputs of each step, and tell what they hold", () => {
      const recording = new Recording();
      const tokens = recording.program.dimension("tokens", 8);
      const table = recording.f32(
        "table",
        [3, 4],
        Float32Array.from({ length: 12 }, (_, i) => i),
      );
      const ids = recording.i32("ids", [tokens], [2, 0]);
      const out = embed(recording.program, { name: "out", table, ids, scale: 1 });
      const { words, plan } = recording.program.finish();
      const memories = recording.memories();
      const buffers = memories.map(({ region, kind }) => {
        const buffer = device.createBuffer(region.length, kind);
        buffer.write(0, region);
        return buffer;
      });
      const program = device.createProgram(words, buffers);
      const read = (rows: number) => {
        const storage = out.storage;
        if (storage.kind !== "arena") throw new Error("the output lies in the arena");
        const values = new Float32Array(rows * 4);
        buffers[0]!.read(plan.storages[storage.index]!.offset, new Uint8Array(values.buffer));
        return [...values];
      };
      program.run([2]);
      expect(read(2)).toEqual([8, 9, 10, 11, 0, 1, 2, 3]);
      // The view is what the engine writes: no call tells the device.
      buffers[2]!.i32(0, 3).set([1, 1, 2]);
      program.run([3]);
      expect(read(3)).toEqual([4, 5, 6, 7, 4, 5, 6, 7, 8, 9, 10, 11]);
      buffers[2]!.i32(0, 1)[0] = 3;
      expect(() => program.run([1])).toThrow("op 0 (embed): a token id is outside the vocabulary");
      buffers[2]!.i32(0, 1)[0] = 0;
      program.run([1]);
      expect(read(1)).toEqual([0, 1, 2, 3]);
      program.run([0]);
      expect(() => program.run([9])).toThrow("dimension 0 is 9; its maximum is 8");
      expect(program.workspaceBytes).toBeGreaterThan(0);
      program.free();
      for (const buffer of buffers) buffer.free();
    });
  });

  describe("inputs that point outside", () => {
    test.each([
      ["a slot past the cache", [0, 12], "op 0 (kv_write): a slot is outside the KV cache"],
      ["a slot below -1", [-2, 0], "op 0 (kv_write): a slot is outside the KV cache"],
    ])("%s", (_, slots, message) => {
      const recording = new Recording();
      const tokens = recording.program.dimension("tokens", 2);
      const cache = {
        keys: recording.state("keys", "f16", [3, 1, 4, 8]),
        values: recording.state("values", "f16", [3, 1, 4, 8]),
      };
      const k = recording.f32("k", [tokens, 1, 8], new Float32Array(16));
      const v = recording.f32("v", [tokens, 1, 8], new Float32Array(16));
      kvWrite(recording.program, { k, v, slotMapping: recording.i32("slots", [tokens], slots), cache });
      for (const one of level.devices) expect(() => recording.run(one, [2])).toThrow(message);
    });

    test("the first op that is wrong is told, whatever comes after", () => {
      const recording = new Recording();
      const rows = recording.program.dimension("rows", 4);
      const x = recording.f32("x", [5, 8], new Float32Array(40));
      const indices = recording.i32("indices", [rows], [4, 5]);
      const first = gatherRows(recording.program, { name: "first", x, indices });
      rmsNorm(recording.program, {
        name: "norm",
        x: first,
        weight: recording.f32("w", [8], new Float32Array(8)),
        epsilon: 1,
        weightOffset: 0,
      });
      for (const one of level.devices) {
        expect(() => recording.run(one, [2])).toThrow("op 0 (gather_rows): a row index is outside");
      }
    });
  });
}
