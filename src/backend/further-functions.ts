/**
 * Functions that one backend's library has beyond the common ABI. They are looked up when they are first used, so
 * that a library of older sources still runs programs.
 */

import { dlopen, type FFIFunction } from "bun:ffi";
import { MistralError } from "../errors.ts";

type Functions<Symbols extends Record<string, FFIFunction>> = ReturnType<typeof dlopen<Symbols>>["symbols"];

/**
 * Opens these symbols of a library, once for each path.
 * @returns a function that throws MistralError `backend` when the library lacks them
 */
export function furtherFunctions<Symbols extends Record<string, FFIFunction>>(
  symbols: Symbols,
  build = "bun run build",
): (path: string) => Functions<Symbols> {
  const opened = new Map<string, Functions<Symbols>>();
  return (path) => {
    let functions = opened.get(path);
    if (functions === undefined) {
      try {
        functions = dlopen(path, symbols).symbols;
      } catch (cause) {
        const message = `${path} is of older sources: ${String(cause)}; run \`${build}\``;
        throw new MistralError("backend", message, { cause });
      }
      opened.set(path, functions);
    }
    return functions;
  };
}
