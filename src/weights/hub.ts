/**
 * The Hugging Face hub: what a repository holds, and its files brought into the shared cache. Listing goes through
 * `@huggingface/hub`; the transfer is ours, because that client neither resumes nor checks nor reports progress.
 */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../errors.ts";
import { type Environment, expandHome, huggingFaceHome } from "./cache-paths.ts";
import { type Download, downloadFile } from "./download.ts";
import type { HubCacheRepository } from "./hub-cache.ts";
import { expectReachable, type NetworkTiming, requestPage } from "./network.ts";

const DEFAULT_ENDPOINT = "https://huggingface.co";
const PARALLEL_FILES_MAX = 4;
const FILES_MAX = 10_000;

export interface HubFile {
  /** Path within the repository. */
  readonly path: string;
  readonly bytes: number;
  /** The SHA-256 of a file kept in large-file storage, else the SHA-1 that git names it by: the blob's name too. */
  readonly hash: string;
  readonly algorithm: Download["check"]["algorithm"];
}

export interface HubRepository {
  readonly modelId: string;
  /** The commit that the revision stands for now. */
  readonly commit: string;
  readonly files: ReadonlyMap<string, HubFile>;
}

/** Called with the bytes present and wanted, over all files of one call to `download`. */
export type OnHubBytes = (bytesDone: number, bytesTotal: number) => void;

export class Hub {
  readonly endpoint: string;
  readonly #environment: Environment;
  readonly #timing: NetworkTiming;
  readonly #token: string | undefined;

  constructor(environment: Environment, timing: NetworkTiming) {
    this.endpoint = (environment.HF_ENDPOINT || DEFAULT_ENDPOINT).replace(/\/+$/, "");
    if (!URL.canParse(this.endpoint)) {
      const message = `HF_ENDPOINT is not a URL: ${JSON.stringify(this.endpoint)}`;
      throw new MistralError("invalid_configuration", message, { parameter: "HF_ENDPOINT" });
    }
    this.#environment = environment;
    this.#timing = timing;
    this.#token = hubToken(environment);
  }

  /** Lists a repository at a branch, tag or commit. Throws `network`, or `model_not_found` with what to do. */
  async list(modelId: string, revision: string): Promise<HubRepository> {
    await expectReachable(new URL(this.endpoint), this.#environment, this.#timing);
    // Loaded here only: it takes 70 ms, and a start from the cache does without.
    const { listFiles, modelInfo } = await import("@huggingface/hub");
    const common = { hubUrl: this.endpoint, fetch: this.#fetchFor(modelId, revision) };
    try {
      const { sha } = await modelInfo({ ...common, name: modelId, revision, additionalFields: ["sha"] });
      if (typeof sha !== "string" || !/^[0-9a-f]{6,64}$/.test(sha)) throw this.#nonsense("no commit");
      const files = new Map<string, HubFile>();
      for await (const entry of listFiles({ ...common, repo: modelId, revision: sha, recursive: true })) {
        if (entry.type !== "file") continue;
        if (files.size >= FILES_MAX) throw this.#nonsense(`more than ${FILES_MAX} files`);
        files.set(entry.path, this.#hubFile(entry.path, entry.size, entry.oid, entry.lfs));
      }
      return { modelId, commit: sha, files };
    } catch (error) {
      if (error instanceof MistralError) throw error;
      const reason = error instanceof Error ? error.message : String(error);
      throw new MistralError("network", `${this.endpoint} gave an answer that is not the hub's: ${reason}`);
    }
  }

  /**
   * Brings the files `names` of `repository` into `cache` and links them into the snapshot of its commit. At most
   * four at a time; one that is there already costs nothing.
   */
  async download(
    repository: HubRepository,
    names: readonly string[],
    cache: HubCacheRepository,
    onBytes: OnHubBytes,
  ): Promise<void> {
    const files = names.map((name) => {
      const file = repository.files.get(name);
      if (file !== undefined) return file;
      throw new MistralError("model_not_found", `${repository.modelId} has no file ${name}`);
    });
    const done = new Array<number>(files.length).fill(0);
    const bytesTotal = files.reduce((sum, { bytes }) => sum + bytes, 0);
    let next = 0;
    let failed = false;
    const work = async (): Promise<void> => {
      while (next < files.length && !failed) {
        const index = next++;
        const file = files[index]!;
        try {
          await this.#downloadOne(repository, file, cache, (bytes) => {
            done[index] = bytes;
            onBytes(
              done.reduce((sum, each) => sum + each, 0),
              bytesTotal,
            );
          });
        } catch (error) {
          failed = true; // the other workers finish their file and stop
          throw error;
        }
      }
    };
    const workers = Array.from({ length: Math.min(PARALLEL_FILES_MAX, files.length) }, work);
    for (const result of await Promise.allSettled(workers))
      if (result.status === "rejected") throw result.reason;
  }

  async #downloadOne(
    { modelId, commit }: HubRepository,
    file: HubFile,
    cache: HubCacheRepository,
    onBytes: (bytes: number) => void,
  ): Promise<void> {
    const path = file.path.split("/").map(encodeURIComponent).join("/");
    const download: Download = {
      url: `${this.endpoint}/${modelId}/resolve/${commit}/${path}`,
      headers: this.#headers(),
      path: cache.blobPath(file.hash),
      bytes: file.bytes,
      check: { algorithm: file.algorithm, digest: file.hash },
      refusal: (response) => this.#refusal(response, modelId, commit),
    };
    await downloadFile(download, this.#timing, onBytes);
    cache.linkFile(commit, file.path, file.hash);
  }

  #headers(): Record<string, string> {
    const headers: Record<string, string> = { "User-Agent": "mistral.ts" };
    if (this.#token !== undefined) headers.Authorization = `Bearer ${this.#token}`;
    return headers;
  }

  /** `fetch` as the client wants it: with our token, our time limits and our words for a refusal. */
  #fetchFor(modelId: string, revision: string): typeof fetch {
    const limited = async (input: string | URL | Request): Promise<Response> => {
      const url = input instanceof Request ? input.url : input;
      const page = await requestPage(url, { ...this.#headers(), Accept: "application/json" }, this.#timing);
      if (page.status !== 200) throw this.#refusal(page, modelId, revision);
      return new Response(page.text, { headers: page.headers });
    };
    return Object.assign(limited, { preconnect: fetch.preconnect });
  }

  #refusal(
    { status, headers }: Pick<Response, "status" | "headers">,
    modelId: string,
    revision: string,
  ): MistralError {
    const code = headers.get("X-Error-Code");
    const page = `${this.endpoint}/${modelId}`;
    if (status === 401 && this.#token === undefined) {
      const advice = "if the name is right it is private or gated, set HF_TOKEN to a token that may read it";
      return new MistralError("model_not_found", `${page} asks who you are (401): ${advice}`);
    }
    if (status === 401) {
      const advice = "HF_TOKEN (or the token file in HF_HOME) is not valid, or no such repository exists";
      return new MistralError("model_not_found", `${page} refused the token (401): ${advice}`);
    }
    if (status === 403) {
      const advice = `accept its conditions at ${page} with the account that the token belongs to`;
      const state =
        code === "GatedRepo" || this.#token !== undefined ? advice : `${advice}, and set HF_TOKEN`;
      return new MistralError("model_not_found", `${page} may not be read (403): ${state}`);
    }
    if (status === 404) {
      const what =
        code === "RevisionNotFound"
          ? `no revision ${revision}`
          : "no such repository or revision; check the spelling";
      return new MistralError(
        "model_not_found",
        `${page} (revision ${revision}) is not there (404): ${what}`,
      );
    }
    return new MistralError("network", `${page} answered with HTTP status ${status}`);
  }

  #hubFile(
    path: string,
    size: number,
    oid: string | undefined,
    lfs?: { oid: string; size: number },
  ): HubFile {
    const hash = lfs?.oid ?? oid ?? "";
    const bytes = lfs?.size ?? size;
    // These become paths in the cache: nothing that leads out of it may pass.
    const safePath = path.split("/").every((part) => part !== "" && part !== "." && part !== "..");
    const safeHash = (lfs === undefined ? /^[0-9a-f]{40}$/ : /^[0-9a-f]{64}$/).test(hash);
    if (
      !safePath ||
      path.includes("\\") ||
      path.includes("\0") ||
      !safeHash ||
      !Number.isSafeInteger(bytes) ||
      bytes < 0
    ) {
      throw this.#nonsense(`the file ${JSON.stringify(path)} with hash ${JSON.stringify(hash)}`);
    }
    return { path, bytes, hash, algorithm: lfs === undefined ? "git-blob" : "sha256" };
  }

  #nonsense(what: string): MistralError {
    return new MistralError(
      "network",
      `${this.endpoint} gave an answer that is not the hub's: it lists ${what}`,
    );
  }
}

/** Whether `HF_HUB_OFFLINE` forbids to ask the hub. */
export function isHubOffline(environment: Environment): boolean {
  return ["1", "true", "yes", "on"].includes((environment.HF_HUB_OFFLINE ?? "").trim().toLowerCase());
}

/** `HF_TOKEN`, then `HF_HUB_TOKEN`, then the file that `huggingface-cli login` writes. */
export function hubToken(environment: Environment): string | undefined {
  const named = [environment.HF_TOKEN, environment.HF_HUB_TOKEN].map((token) => token?.trim()).find(Boolean);
  if (named !== undefined) return named;
  const fromPath = environment.HF_TOKEN_PATH;
  const path = fromPath ? expandHome(fromPath, environment) : join(huggingFaceHome(environment), "token");
  return existsSync(path) ? readFileSync(path, "utf8").trim() || undefined : undefined;
}
