import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Device } from "../../src/backend/device.ts";
import { availableLevels } from "../../src/backend/library.ts";
import { MistralError } from "../../src/errors.ts";

const device = Device.open({ kind: "cpu", threads: 2 });
const folder = mkdtempSync(join(tmpdir(), "device-"));
afterAll(() => {
  device.close();
  rmSync(folder, { recursive: true });
});

function failure(act: () => unknown): MistralError {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(MistralError);
    return error as MistralError;
  }
  throw new Error("nothing was thrown");
}

describe("device", () => {
  test("takes the best level that is built, or the one it is told", () => {
    expect(device.info).toMatchObject({ kind: "cpu", threads: 2, instructionSet: availableLevels()[0]! });
    for (const level of availableLevels()) {
      const forced = Device.open({ kind: "cpu", threads: 1, instructionSet: level });
      expect(forced.info.instructionSet).toBe(level);
      forced.close();
    }
  });

  test("refuses impossible options with what is possible", () => {
    expect(failure(() => Device.open({ kind: "cpu", threads: 0 })).message).toContain("0 threads; 1 to 256");
    const unknown = failure(() => Device.open({ kind: "cpu", threads: 1, instructionSet: "x86_64_v9" }));
    expect(unknown.code).toBe("invalid_configuration");
    expect(unknown.message).toContain("possible here: ");
  });

  test("threads come and go", () => {
    for (let round = 0; round < 20; round++) Device.open({ kind: "cpu", threads: 1 + (round % 4) }).close();
  });
});

describe("buffers", () => {
  test("start zeroed and are seen through views without a copy", () => {
    const buffer = device.createBuffer(1 << 20);
    expect(buffer.u8(0, 1 << 20).every((byte) => byte === 0)).toBe(true);
    buffer.i32(8, 2).set([7, -1]);
    expect([...buffer.u8(8, 8)]).toEqual([7, 0, 0, 0, 255, 255, 255, 255]);
    expect(() => buffer.u8((1 << 20) - 1, 2)).toThrow(RangeError);
    buffer.free();
    expect(() => buffer.u8(0, 1)).toThrow("buffer is freed");
    buffer.free();
  });

  test.each(["device", "bulk"] as const)(
    "of kind %s take memory when they are touched, little by little",
    (kind) => {
      const before = process.memoryUsage.rss();
      const buffer = device.createBuffer(1 << 30, kind);
      const grown = () => process.memoryUsage.rss() - before;
      const created = grown();
      for (const offset of [0, (1 << 29) + 12345, (1 << 30) - 1]) {
        const bytes = buffer.u8(offset, 1);
        expect(bytes[0]).toBe(0);
        bytes[0] = 1;
      }
      // Three pages of the largest kind, and what the runtime itself takes meanwhile.
      expect(grown() - created).toBeLessThan(3 * (2 << 20) + (16 << 20));
      expect(created).toBeLessThan(16 << 20);
      buffer.free();
    },
  );

  test("reach past 4 GiB without touching the pages between", () => {
    const bytes = 6 * 2 ** 30;
    const buffer = device.createBuffer(bytes);
    buffer.u8(bytes - 4, 4).set([1, 2, 3, 4]);
    expect(buffer.i32(bytes - 4, 1)[0]).toBe(0x04030201);
    buffer.free();
  });

  test("wrap memory of the caller", () => {
    const memory = new Uint8Array([1, 2, 3, 4]);
    const buffer = device.wrap(memory);
    buffer.u8(1, 1)[0] = 9;
    expect([...memory]).toEqual([1, 9, 3, 4]);
    buffer.free();
  });

  test("map a file from any offset", () => {
    const path = join(folder, "weights.bin");
    writeFileSync(
      path,
      Uint8Array.from({ length: 10_000 }, (_, index) => index % 251),
    );
    const buffer = device.mapFile(path, 4099, 500);
    expect([...buffer.u8(0, 3)]).toEqual([4099 % 251, 4100 % 251, 4101 % 251]);
    expect(buffer.u8(499, 1)[0]).toBe(4598 % 251);
    buffer.free();
  });

  test("name the file and the numbers when it cannot be mapped", () => {
    const path = join(folder, "short.bin");
    writeFileSync(path, "short");
    expect(failure(() => device.mapFile(path, 2, 10)).message).toContain(
      "has 5 bytes; cannot map 10 from byte 2",
    );
    expect(failure(() => device.mapFile(join(folder, "none"), 0, 1)).message).toContain("NOENT");
    expect(failure(() => device.createBuffer(0)).message).toContain("0 bytes");
  });
});
