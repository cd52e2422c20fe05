/**
 * Writes safetensors files for tests: 8 bytes of header length, a JSON header padded with spaces to a multiple
 * of 8, then the tensors one after the other (safetensors README, "Format").
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const SAFETENSORS_NAMES = { f32: "F32", f16: "F16", bf16: "BF16" } as const;

export interface SafetensorsTensor {
  readonly name: string;
  readonly dtype: keyof typeof SAFETENSORS_NAMES;
  /** Row-major, outermost dimension first. */
  readonly shape: readonly number[];
  readonly data: Uint8Array;
}

/** The bytes of a file with this header, whatever it says, followed by `data`. */
export function encodeSafetensorsHeader(header: unknown, data: Uint8Array = new Uint8Array(0)): Uint8Array {
  const json = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const headerBytes = Math.ceil(json.length / 8) * 8;
  const bytes = new Uint8Array(8 + headerBytes + data.length).fill(0x20, 8 + json.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(json, 8);
  bytes.set(data, 8 + headerBytes);
  return bytes;
}

/** The bytes of a safetensors file with these tensors, in this order. */
export function encodeSafetensors(
  tensors: readonly SafetensorsTensor[],
  metadata: Readonly<Record<string, string>> = { format: "pt" },
): Uint8Array {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let dataBytes = 0;
  for (const { name, dtype, shape, data } of tensors) {
    header[name] = {
      dtype: SAFETENSORS_NAMES[dtype],
      shape,
      data_offsets: [dataBytes, dataBytes + data.length],
    };
    dataBytes += data.length;
  }
  const joined = new Uint8Array(dataBytes);
  let offset = 0;
  for (const { data } of tensors) {
    joined.set(data, offset);
    offset += data.length;
  }
  return encodeSafetensorsHeader(header, joined);
}

/** Writes a safetensors file with these tensors to `path`. */
export function writeSafetensors(path: string, tensors: readonly SafetensorsTensor[]): void {
  writeFileSync(path, encodeSafetensors(tensors));
}

/** Writes `shards` with their index, as the Hugging Face tools do, and `config.json`, into `folder`. */
export function writeShardedSafetensors(
  folder: string,
  config: Readonly<Record<string, unknown>>,
  shards: readonly (readonly SafetensorsTensor[])[],
): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const weightMap: Record<string, string> = {};
  let totalBytes = 0;
  for (const [index, tensors] of shards.entries()) {
    const file = `model-${fiveDigits(index + 1)}-of-${fiveDigits(shards.length)}.safetensors`;
    writeSafetensors(join(folder, file), tensors);
    for (const { name, data } of tensors) {
      weightMap[name] = file;
      totalBytes += data.length;
    }
  }
  writeFileSync(
    join(folder, "model.safetensors.index.json"),
    JSON.stringify({ metadata: { total_size: totalBytes }, weight_map: weightMap }),
  );
}

function fiveDigits(value: number): string {
  return String(value).padStart(5, "0");
}
