import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readSafetensorsFile } from "../../src/weights/safetensors.ts";
import { expectMistralError } from "../support/expect-error.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { encodeSafetensors, encodeSafetensorsHeader } from "../support/write-safetensors.ts";

const folder = temporaryFolder("safetensors");
let fileNumber = 0;

function fileWith(bytes: Uint8Array): string {
  const path = join(folder, `${fileNumber++}.safetensors`);
  writeFileSync(path, bytes);
  return path;
}

test("names, types, shapes and offsets of the bytes themselves", async () => {
  const tensors = [
    { name: "b", dtype: "f32", shape: [2, 3], data: new Uint8Array(24).fill(1) },
    { name: "a", dtype: "bf16", shape: [5], data: new Uint8Array(10).fill(2) },
    { name: "scalar", dtype: "f16", shape: [], data: new Uint8Array(2).fill(3) },
    { name: "nothing", dtype: "f16", shape: [0, 4], data: new Uint8Array(0) },
    { name: "__proto__", dtype: "f16", shape: [1], data: new Uint8Array(2).fill(4) },
  ] as const;
  const path = fileWith(
    encodeSafetensorsHeader(
      `{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},` +
        `"a":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]},"scalar":{"dtype":"F16","shape":[],"data_offsets":[34,36]},` +
        `"nothing":{"dtype":"F16","shape":[0,4],"data_offsets":[36,36]},"__proto__":{"dtype":"F16","shape":[1],"data_offsets":[36,38]}}`,
      Buffer.concat(tensors.map(({ data }) => data)),
    ),
  );
  const whole = new Uint8Array(await Bun.file(path).arrayBuffer());
  const file = readSafetensorsFile(path, 3);
  expect(file.tensors).toHaveLength(tensors.length);
  for (const [index, { name, dtype, shape, data }] of tensors.entries()) {
    const entry = file.tensors[index]!;
    expect(entry).toMatchObject({ name, dtype, shape: [...shape], bytes: data.length, file: 3 });
    expect(whole.slice(entry.offset, entry.offset + entry.bytes)).toEqual(data);
  }
});

test("a tensor of a type that is not read is listed apart", () => {
  const path = fileWith(
    encodeSafetensorsHeader(
      {
        ids: { dtype: "I64", shape: [2], data_offsets: [0, 16] },
        weight: { dtype: "F32", shape: [1], data_offsets: [16, 20] },
        eight: { dtype: "F8_E4M3", shape: [4], data_offsets: [20, 24] },
      },
      new Uint8Array(24),
    ),
  );
  const file = readSafetensorsFile(path);
  expect(file.tensors.map(({ name }) => name)).toEqual(["weight"]);
  expect([...file.unread]).toEqual([
    ["ids", "I64"],
    ["eight", "F8_E4M3"],
  ]);
});

describe("refused with file, byte and reason", () => {
  const refused = (bytes: Uint8Array, ...parts: string[]): void => {
    const path = fileWith(bytes);
    expectMistralError(() => readSafetensorsFile(path), "invalid_model_file", path, ...parts);
  };
  const entry = (more: Record<string, unknown>) => ({
    dtype: "F32",
    shape: [2],
    data_offsets: [0, 8],
    ...more,
  });
  const described = (header: Record<string, unknown>, dataBytes: number, ...parts: string[]): void =>
    refused(encodeSafetensorsHeader(header, new Uint8Array(dataBytes)), ...parts);

  test("a file cut at any byte", () => {
    const bytes = encodeSafetensors([{ name: "t", dtype: "f32", shape: [2], data: new Uint8Array(8) }]);
    for (let length = 0; length < bytes.length; length++) refused(bytes.subarray(0, length), ", byte ");
  });

  test("a header length that is absurd or leaves the file", () => {
    const withLength = (length: bigint): Uint8Array => {
      const bytes = encodeSafetensors([]);
      new DataView(bytes.buffer).setBigUint64(0, length, true);
      return bytes;
    };
    refused(withLength(2n ** 64n - 1n), "byte 0", "18446744073709551615 bytes is more than the 100000000");
    refused(withLength(50_000_000n), "byte 0", "the file ends at");
    refused(withLength(0n), "byte 8", 'does not begin with "{"');
  });

  test("a header that is not a JSON object", () => {
    const header = (text: string) => encodeSafetensorsHeader(text);
    refused(header('{"a":'), "byte 8", "not valid JSON");
    refused(header("[]"), "byte 8", 'does not begin with "{"');
    refused(header(`{"a":${"[".repeat(200_000)}${"]".repeat(200_000)}}`), "byte 8");
    const bytes = header('{"a":"\u00ff"}');
    bytes[8 + 6] = 0xff;
    refused(bytes, "byte 8", "not valid JSON");
  });

  test("malformed entries", () => {
    described({ __metadata__: { format: 1 } }, 0, "__metadata__");
    described({ t: 5 }, 0, '"t" is not described');
    described({ t: entry({ dtype: "F33" }) }, 8, '"t" has unknown dtype', "F33");
    described({ t: entry({ dtype: undefined }) }, 8, '"t" has unknown dtype');
    described({ t: entry({ shape: "2" }) }, 8, '"t" has a shape');
    described({ t: entry({ shape: [-1] }) }, 8, '"t" has a shape');
    described({ t: entry({ shape: [1.5] }) }, 8, '"t" has a shape');
    described({ t: entry({ data_offsets: [0] }) }, 8, '"t" has data_offsets');
    described({ t: entry({ data_offsets: [8, 0] }) }, 8, "before its start");
    described({ t: entry({ shape: [3] }) }, 8, "takes 12 bytes", "holds 8");
    described({ t: entry({ shape: [2 ** 40, 2 ** 40] }) }, 8, "overflows");
  });

  test("tensors that overlap, leave holes or leave the file", () => {
    const at = (start: number, end: number) => entry({ data_offsets: [start, end] });
    described({ a: at(0, 8), b: at(4, 12) }, 12, '"b" overlaps');
    described({ a: at(0, 8), b: at(0, 8) }, 8, '"b" overlaps');
    described({ a: at(0, 8), b: at(12, 20) }, 20, "4 bytes belong to no tensor");
    described({ a: at(4, 12) }, 12, "4 bytes belong to no tensor");
    described({ a: at(0, 8) }, 10, "2 bytes belong to no tensor");
    described({ a: at(0, 8) }, 4, '"a" reaches to byte');
    const name = '"a":{"dtype":"F32","shape":[2],"data_offsets":';
    refused(
      encodeSafetensorsHeader(`{${name}[0,8]},${name}[8,16]}}`, new Uint8Array(16)),
      "belong to no tensor",
    );
  });
});
