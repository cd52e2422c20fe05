import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { DTYPES, FILE_DTYPES, type FileDType } from "../../src/backend/dtype.ts";
import { readGgufFile } from "../../src/weights/gguf.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { encodeGguf, type GgufContent, type GgufField, type GgufTensor } from "../support/write-gguf.ts";

const folder = temporaryFolder("gguf");
let fileNumber = 0;

function fileWith(bytes: Uint8Array): string {
  const path = join(folder, `${fileNumber++}.gguf`);
  writeFileSync(path, bytes);
  return path;
}

function tensor(name: string, shape: readonly number[] = [2, 3], more: Partial<GgufTensor> = {}): GgufTensor {
  const elements = shape.reduce((product, dimension) => product * dimension, 1);
  return { name, dtype: "f32", shape, data: new Uint8Array(elements * 4).fill(7), ...more };
}

function read(content: Partial<GgufContent>) {
  return readGgufFile(fileWith(encodeGguf({ metadata: {}, tensors: [], ...content })));
}

function readMetadata(metadata: Record<string, GgufField>) {
  return Object.fromEntries(read({ metadata }).metadata);
}

describe("metadata", () => {
  test("every type, at its extremes", () => {
    const metadata = readMetadata({
      u8: { type: "u8", value: 255 },
      i8: { type: "i8", value: -128 },
      u16: { type: "u16", value: 65535 },
      i16: { type: "i16", value: -32768 },
      u32: { type: "u32", value: 4294967295 },
      i32: { type: "i32", value: -2147483648 },
      f32: { type: "f32", value: Math.fround(1e-5) },
      yes: { type: "bool", value: true },
      no: { type: "bool", value: false },
      string: { type: "string", value: "naïve 日本 🙂" },
      empty: { type: "string", value: "" },
      f64: { type: "f64", value: Math.PI },
      u64: { type: "u64", value: 2n ** 64n - 1n },
      u64Small: { type: "u64", value: 2n ** 53n - 1n },
      i64: { type: "i64", value: -(2n ** 63n) },
      i64Small: { type: "i64", value: -1n },
    });
    expect(metadata).toEqual({
      u8: 255,
      i8: -128,
      u16: 65535,
      i16: -32768,
      u32: 4294967295,
      i32: -2147483648,
      f32: Math.fround(1e-5),
      yes: true,
      no: false,
      string: "naïve 日本 🙂",
      empty: "",
      f64: Math.PI,
      u64: 2n ** 64n - 1n,
      u64Small: 2 ** 53 - 1,
      i64: -(2n ** 63n),
      i64Small: -1,
    });
  });

  test("lists of every width, and lists in lists", () => {
    const metadata = readMetadata({
      strings: { type: "string[]", value: ["a", "", "ü"] },
      floats: { type: "f32[]", value: [0.5, -2, Number.POSITIVE_INFINITY] },
      words: { type: "i32[]", value: [-1, 0, 2147483647] },
      shorts: { type: "u16[]", value: [1, 65535] },
      longs: { type: "i64[]", value: [1n, -(2n ** 60n)] },
      flags: { type: "bool[]", value: [true, false, true] },
      none: { type: "f64[]", value: [] },
      nested: { type: "u32[][]", value: [[1, 2], [], [3]] },
      nestedStrings: { type: "string[][]", value: [["x"], ["y", "z"]] },
    });
    expect(metadata).toEqual({
      strings: ["a", "", "ü"],
      floats: [0.5, -2, Number.POSITIVE_INFINITY],
      words: [-1, 0, 2147483647],
      shorts: [1, 65535],
      longs: [1, -(2n ** 60n)],
      flags: [true, false, true],
      none: [],
      nested: [[1, 2], [], [3]],
      nestedStrings: [["x"], ["y", "z"]],
    });
  });

  test("a byte order mark is part of a token, not decoration", () => {
    const { tokens, text } = readMetadata({
      tokens: { type: "string[]", value: ["\ufeff", "\ufeffusing", "a\ufeff"] },
      text: { type: "string", value: "\ufefftemplate" },
    });
    expect(tokens).toEqual(["\ufeff", "\ufeffusing", "a\ufeff"]);
    expect(text).toBe("\ufefftemplate");
  });

  test("a vocabulary longer than the first window reads whole and in order", () => {
    const value = Array.from({ length: 150_000 }, (_, index) => `▁token${index}`);
    const { tokens, after } = readMetadata({
      tokens: { type: "string[]", value },
      after: { type: "u32", value: 42 },
    });
    expect(tokens).toEqual(value);
    expect(after).toBe(42);
  });

  test("a list may hold a string whose length takes four bytes", () => {
    const long = "x".repeat(2 ** 24 + 3);
    const { texts, after } = readMetadata({
      texts: { type: "string[]", value: ["a", long, "b"] },
      after: { type: "i32[]", value: [1, -2] },
    });
    expect(texts).toEqual(["a", long, "b"]);
    expect(after).toEqual([1, -2]);
  });
});

describe("tensors", () => {
  test.each([2, 3])("version %d: names, row-major shapes, offsets of the bytes themselves", (version) => {
    const path = fileWith(
      encodeGguf({
        version,
        metadata: {},
        tensors: [tensor("a", [5]), tensor("b", [2, 3, 4]), tensor("c", [])],
      }),
    );
    const file = readGgufFile(path, 4);
    expect(file.version).toBe(version);
    expect(file.tensors.map(({ name, shape, bytes, file }) => ({ name, shape, bytes, file }))).toEqual([
      { name: "a", shape: [5], bytes: 20, file: 4 },
      { name: "b", shape: [2, 3, 4], bytes: 96, file: 4 },
      { name: "c", shape: [], bytes: 4, file: 4 },
    ]);
  });

  test.each([8, 32, 4096])("offsets point at the data with alignment %d", async (alignment) => {
    const data = [1, 2, 3].map((byte) => new Uint8Array(40).fill(byte));
    const tensors = data.map((bytes, index) => tensor(`t${index}`, [10], { data: bytes }));
    const path = fileWith(encodeGguf({ alignment, metadata: {}, tensors }));
    const whole = new Uint8Array(await Bun.file(path).arrayBuffer());
    for (const [index, { offset, bytes }] of readGgufFile(path).tensors.entries()) {
      expect(offset % alignment).toBe(0);
      expect(whole.slice(offset, offset + bytes)).toEqual(data[index]!);
    }
  });

  test.each(FILE_DTYPES)("%s rows take whole blocks", (dtype) => {
    const { blockElements, blockBytes } = DTYPES[dtype];
    const data = new Uint8Array(3 * 2 * blockBytes);
    const { tensors } = read({ tensors: [{ name: "t", dtype, shape: [3, 2 * blockElements], data }] });
    expect(tensors[0]).toMatchObject({ dtype, shape: [3, 2 * blockElements], bytes: data.length });
  });
});

describe("refused with file, byte and reason", () => {
  const valid = (): Uint8Array =>
    encodeGguf({ metadata: { key: { type: "string", value: "value" } }, tensors: [tensor("t")] });

  /** A valid file with a 64-bit little-endian number written over byte `offset`. */
  function patched(offset: number, value: bigint): string {
    const bytes = valid();
    new DataView(bytes.buffer).setBigUint64(offset, value, true);
    return fileWith(bytes);
  }

  test("a missing file and a folder", () => {
    expectMistralError(
      () => readGgufFile(join(folder, "none.gguf")),
      "model_not_found",
      "none.gguf",
      "ENOENT",
    );
    expectMistralError(() => readGgufFile(folder), "model_not_found", "not a regular file");
  });

  test("a wrong magic number, an empty file, a big-endian file, versions 1 and 4", () => {
    const path = fileWith(new TextEncoder().encode("GGML is the older format"));
    expectMistralError(() => readGgufFile(path), "invalid_model_file", `${path}, byte 0`, "not a GGUF file");
    expectMistralError(
      () => readGgufFile(fileWith(new Uint8Array(0))),
      "invalid_model_file",
      "ends at byte 0",
    );
    const bigEndian = valid();
    bigEndian.set([0, 0, 0, 3], 4);
    expectMistralError(() => readGgufFile(fileWith(bigEndian)), "unsupported_model", "big-endian");
    expectMistralError(() => read({ version: 1 }), "unsupported_model", "version 1");
    expectMistralError(() => read({ version: 4 }), "unsupported_model", "version 4");
  });

  test("a file cut at any byte", () => {
    const bytes = valid();
    for (let length = 0; length < bytes.length - 8; length++) {
      const path = fileWith(bytes.subarray(0, length));
      expectMistralError(() => readGgufFile(path), "invalid_model_file", `${path}, byte `);
    }
  });

  test("counts that are absurd or overflow", () => {
    const absurd = 2n ** 63n;
    expectMistralError(
      () => readGgufFile(patched(8, absurd)),
      "invalid_model_file",
      "number of tensors",
      `${absurd}`,
    );
    expectMistralError(
      () => readGgufFile(patched(16, absurd)),
      "invalid_model_file",
      "metadata entries",
      "byte 16",
    );
    expectMistralError(
      () => readGgufFile(patched(8, 1n << 30n)),
      "invalid_model_file",
      "byte 8",
      "1073741824 tensors",
    );
    expectMistralError(() => readGgufFile(patched(16, 1n << 30n)), "invalid_model_file", "byte 16");
    expectMistralError(() => readGgufFile(patched(8, 100_000n)), "invalid_model_file", "cannot fit");
    expectMistralError(() => readGgufFile(patched(16, 50_000n)), "invalid_model_file", "cannot fit");
  });

  test("string lengths that overflow or leave the file", () => {
    const reaches = (value: bigint, ...parts: string[]) =>
      expectMistralError(() => readGgufFile(patched(24, value)), "invalid_model_file", "byte 24", ...parts);
    reaches(2n ** 64n - 1n, "absurd");
    reaches(2n ** 40n, "more than");
    expectMistralError(
      () => readGgufFile(patched(24, 1n << 20n)),
      "invalid_model_file",
      "the file ends at byte",
    );
  });

  test("list lengths that overflow or leave the file", () => {
    const list = (type: "u8" | "string"): Uint8Array =>
      encodeGguf({ metadata: { k: { type: `${type}[]`, value: [] } }, tensors: [] });
    // key length 8, key 1, type 4, element type 4 from byte 24 on
    for (const type of ["u8", "string"] as const) {
      for (const length of [2n ** 64n - 1n, 2n ** 53n - 1n, 1n << 32n, 1000n]) {
        const bytes = list(type);
        new DataView(bytes.buffer).setBigUint64(41, length, true);
        expectMistralError(() => readGgufFile(fileWith(bytes)), "invalid_model_file", "byte 41", '"k"');
      }
    }
  });

  test("lists that nest without end", () => {
    const depth = 100_000;
    const head = encodeGguf({ metadata: { k: { type: "u8[][]", value: [] } }, tensors: [] }).slice(0, 37);
    const bytes = new Uint8Array(head.length + depth * 12);
    bytes.set(head);
    const view = new DataView(bytes.buffer);
    for (let level = 0; level < depth; level++) {
      view.setUint32(head.length + level * 12, 9, true);
      view.setUint32(head.length + level * 12 + 4, 1, true);
    }
    expectMistralError(() => readGgufFile(fileWith(bytes)), "invalid_model_file", "nests lists deeper");
  });

  test("an unknown metadata type, a boolean of 2, a repeated key", () => {
    const bytes = encodeGguf({ metadata: { k: { type: "bool", value: true } }, tensors: [] });
    const badBoolean = bytes.slice();
    badBoolean[37] = 2;
    expectMistralError(() => readGgufFile(fileWith(badBoolean)), "invalid_model_file", "byte 37", "boolean");
    const badType = bytes.slice();
    badType[33] = 99;
    expectMistralError(() => readGgufFile(fileWith(badType)), "invalid_model_file", "type 99", '"k"');
    const twoKeys = encodeGguf({
      metadata: { a: { type: "u8", value: 1 }, b: { type: "u8", value: 1 } },
      tensors: [],
    });
    twoKeys[24 + 14 + 8] = "a".charCodeAt(0);
    expectMistralError(
      () => readGgufFile(fileWith(twoKeys)),
      "invalid_model_file",
      "byte 38",
      "occurs twice",
    );
  });

  test.each([0, 4, 12, 33, 2 ** 30])("alignment %d", (alignment) => {
    const metadata = { "general.alignment": { type: "u32", value: alignment } } as const;
    expectMistralError(() => read({ metadata }), "invalid_model_file", `general.alignment is ${alignment}`);
  });

  test("tensor types that are not read, by name", () => {
    const withType = (dtype: number) => () => read({ tensors: [tensor("blk.0.x", [32], { dtype })] });
    expectMistralError(withType(23), "unsupported_model", '"blk.0.x"', "IQ4_XS (type 23)", ".gguf");
    expectMistralError(withType(12345), "unsupported_model", '"blk.0.x"', "unknown type (type 12345)");
  });

  test("shapes that overflow, have too many dimensions or ragged rows", () => {
    const shaped =
      (shape: number[], dtype: FileDType = "f32") =>
      () =>
        read({ tensors: [{ name: "t", dtype, shape, data: new Uint8Array(64) }] });
    expectMistralError(shaped([2 ** 40, 2 ** 40]), "invalid_model_file", '"t"', "overflows");
    expectMistralError(shaped([1, 1, 1, 1, 1]), "invalid_model_file", "5 dimensions");
    expectMistralError(shaped([2, 33], "q8_0"), "invalid_model_file", "33 elements", "q8_0 blocks of 32");
    expectMistralError(shaped([2, 128], "q4_k"), "invalid_model_file", "128 elements", "256");
  });

  test("tensors that overlap, leave the file, are unaligned or share a name", () => {
    const placed =
      (...tensors: GgufTensor[]) =>
      () =>
        read({ tensors });
    expectMistralError(
      placed(tensor("a", [16]), tensor("b", [16], { offset: 32 })),
      "invalid_model_file",
      'tensor "b" overlaps tensor "a"',
    );
    expectMistralError(placed(tensor("a", [16], { offset: 4 })), "invalid_model_file", "alignment 32", '"a"');
    expectMistralError(placed(tensor("a"), tensor("a")), "invalid_model_file", '"a" occurs twice');
    const short = tensor("a", [1000], { data: new Uint8Array(32) });
    expectMistralError(placed(short), "invalid_model_file", '"a" needs bytes', "the file ends at");
    const far = encodeGguf({ metadata: {}, tensors: [tensor("a", [8])] });
    new DataView(far.buffer).setBigUint64(24 + 8 + 1 + 4 + 8 + 4, 2n ** 52n, true);
    expectMistralError(
      () => readGgufFile(fileWith(far)),
      "invalid_model_file",
      '"a" needs bytes 4503599627370',
    );
  });
});
