/**
 * Writes small GGML files for tests, in every container and version there was; nothing is checked, so that a test can
 * also write what a reader must refuse.
 */

import { writeFileSync } from "node:fs";
import { DTYPES } from "../../src/backend/dtype.ts";
import type { GgufTensor } from "./write-gguf.ts";

export interface GgmlContent {
  /** Four letters; on disk they stand the other way round. */
  readonly container: string;
  /** Absent: not written, as in the container `ggml`. */
  readonly version?: number;
  readonly width: number;
  readonly heads: number;
  readonly layers: number;
  readonly rotatedDims?: number;
  /** What each token prints, and its score where the container has scores. */
  readonly tokens: readonly { readonly bytes: Uint8Array; readonly score: number }[];
  readonly hasScores?: boolean;
  readonly tensors: readonly Omit<GgufTensor, "offset">[];
}

/** The bytes of a GGML file with this content. */
export function encodeGgml(content: GgmlContent): Uint8Array {
  const { container, version, width, heads, layers, tokens, tensors } = content;
  const { rotatedDims = width / heads, hasScores = container !== "ggml" } = content;
  const parts: Uint8Array[] = [];
  let length = 0;
  const add = (bytes: Uint8Array): void => {
    parts.push(bytes);
    length += bytes.length;
  };
  const u32 = (...values: number[]): void => add(new Uint8Array(Uint32Array.from(values).buffer));
  add(new TextEncoder().encode([...container].reverse().join("")));
  if (version !== undefined) u32(version);
  u32(tokens.length, width, 256, heads, layers, rotatedDims, 0);
  for (const { bytes, score } of tokens) {
    u32(bytes.length);
    add(bytes);
    if (hasScores) add(new Uint8Array(Float32Array.of(score).buffer));
  }
  for (const { name, dtype, shape, data } of tensors) {
    const bytes = new TextEncoder().encode(name);
    u32(shape.length, bytes.length, typeof dtype === "number" ? dtype : DTYPES[dtype].code);
    u32(...[...shape].reverse());
    add(bytes);
    if (container === "ggjt") add(new Uint8Array((32 - (length % 32)) % 32));
    add(data);
  }
  const file = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    file.set(part, at);
    at += part.length;
  }
  return file;
}

/** Writes a GGML file with this content to `path`. */
export function writeGgml(path: string, content: GgmlContent): void {
  writeFileSync(path, encodeGgml(content));
}
