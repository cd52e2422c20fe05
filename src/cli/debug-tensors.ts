/**
 * MISTRALRS_DEBUG lists the tensors of a GGUF or GGML file in the working directory, as mistral.rs does: a JSON array
 * with a text per tensor. Sorted by name, which the original is not, so that two lists can be compared.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { DType } from "../backend/dtype.ts";
import type { Checkpoint } from "../weights/types.ts";

/** By the format of the file. */
const LIST_FILES = { gguf: "mistralrs_gguf_tensors.txt", ggml: "mistralrs_ggml_tensors.txt" } as const;

/** The names of types as mistral.rs prints them. */
function typeName(type: DType): string {
  return type.toUpperCase().replace(/_K$/, "K");
}

/** The text of the list, with the names that the file has. */
export function tensorList({ tensors }: Checkpoint): string {
  const lines = [...tensors.values()]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map(({ name, shape, dtype }) => {
      return `name = \`${name}\`, shape = [${shape.join(", ")}], dtype = ${typeName(dtype)}`;
    });
  return JSON.stringify(lines, null, 2);
}

/** Writes the list into `folder` and gives its path; undefined for other formats, which have no such list. */
export function writeTensorList(checkpoint: Checkpoint, folder: string): string | undefined {
  if (checkpoint.format !== "gguf") return undefined;
  const path = join(folder, LIST_FILES[checkpoint.container ?? "gguf"]);
  writeFileSync(path, tensorList(checkpoint));
  return path;
}
