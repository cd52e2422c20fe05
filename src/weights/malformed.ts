/** The errors of the weight readers: which file, where in it, what is wrong. */

import { MistralError } from "../errors.ts";

/** A file that breaks the rules of its format. `offset` is the byte the reader was at, when there is one. */
export function malformed(path: string, offset: number | undefined, reason: string): MistralError {
  const where = offset === undefined ? path : `${path}, byte ${offset}`;
  return new MistralError("invalid_model_file", `${where}: ${reason}`);
}

/** A well-formed file that holds something we do not read. */
export function unsupported(path: string, reason: string): MistralError {
  return new MistralError("unsupported_model", `${path}: ${reason}`);
}

/** A name read from a file, shortened and quoted so that it can stand in a message. */
export function quoted(name: string): string {
  return JSON.stringify(name.length > 80 ? `${name.slice(0, 77)}...` : name);
}

/** What a failed system call says, without the call's own wording: `ENOENT`, `EACCES`, or the message. */
export function systemReason(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : error instanceof Error ? error.message : String(error);
}
