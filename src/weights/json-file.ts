/** Reads the JSON files that come with a checkpoint, bounded in size and always an object. */

import { malformed } from "./malformed.ts";
import { PositionedFile } from "./positioned-file.ts";

export type JsonObject = Record<string, unknown>;

/** The JSON object in the file at `path`, of at most `bytesMax` bytes. */
export function readJsonObject(path: string, bytesMax: number): JsonObject {
  return PositionedFile.use(path, (file) => {
    if (file.bytes > bytesMax) {
      throw malformed(path, undefined, `${file.bytes} bytes of JSON are more than the ${bytesMax} allowed`);
    }
    const bytes = new Uint8Array(file.bytes);
    file.readInto(bytes, 0);
    return parseJsonObject(path, undefined, bytes);
  });
}

/** Parses `bytes` of the file at `path`, found at `offset` where that helps, as a JSON object. */
export function parseJsonObject(path: string, offset: number | undefined, bytes: Uint8Array): JsonObject {
  let value: unknown;
  try {
    value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    // Besides syntax: invalid UTF-8, and the stack of the parser when lists nest a million deep.
    throw malformed(
      path,
      offset,
      `not valid JSON: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
  if (!isJsonObject(value)) throw malformed(path, offset, "the JSON is not an object");
  return value;
}

export function isJsonObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
