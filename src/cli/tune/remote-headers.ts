/**
 * The headers of a model on the hub, without its weights: the beginning of each file is fetched into a file of the
 * full length whose rest is a hole, which the readers of headers cannot tell from the whole.
 */

import { closeSync, ftruncateSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { MistralError } from "../../errors.ts";
import type { Environment } from "../../weights/cache-paths.ts";
import { groupGgufFiles, openCheckpoint } from "../../weights/checkpoint.ts";
import { isGgmlFile } from "../../weights/ggml.ts";
import { Hub, type HubFile, hubToken } from "../../weights/hub.ts";
import { chooseModelFiles } from "../../weights/model-files.ts";
import { NETWORK_TIMING, request } from "../../weights/network.ts";
import { INDEX_FILE, parseIndex } from "../../weights/safetensors-folder.ts";
import type { Checkpoint } from "../../weights/types.ts";

export interface RemoteModel {
  readonly checkpoint: Checkpoint;
  /** GGUF file of the repository; undefined for safetensors. */
  readonly file: string | undefined;
}

/** First piece of a file that is fetched, and by how much it grows until the header is whole. */
const FIRST_BYTES = 1 << 20;
const GROWTH = 4;

/**
 * Reads the headers of every GGUF model of a repository, or of the one that `file` names, else of its safetensors.
 * Nothing stays on the disk. Throws `network`, `model_not_found` or what malformed headers throw.
 */
export async function readRemoteHeaders(
  id: string,
  revision: string,
  file: string | undefined,
  environment: Environment,
  firstBytes = FIRST_BYTES,
): Promise<readonly RemoteModel[]> {
  const hub = new Hub(environment, NETWORK_TIMING);
  const repository = await hub.list(id, revision);
  const folder = mkdtempSync(join(tmpdir(), "mistral-headers-"));
  const source: Source = {
    folder,
    files: repository.files,
    urlOf: (name) =>
      `${hub.endpoint}/${id}/resolve/${repository.commit}/${name.split("/").map(encodeURIComponent).join("/")}`,
    token: hubToken(environment),
    firstBytes,
  };
  try {
    const names = [...repository.files.keys()];
    const candidates = groupGgufFiles(names);
    if (file === undefined && candidates.length > 1) {
      const models: RemoteModel[] = [];
      for (const { name, files } of candidates) {
        models.push({ checkpoint: await openRemote(source, files, name), file: name });
      }
      return models;
    }
    const chosen = chooseModelFiles(names, file, id);
    if (chosen.format === "gguf") {
      return [{ checkpoint: await openRemote(source, chosen.files, chosen.open), file: chosen.open }];
    }
    for (const name of chosen.companions) await fetchStart(source, name, Number.POSITIVE_INFINITY);
    const weights = chosen.weights ?? [...parseIndex(join(folder, INDEX_FILE)).keys()];
    return [{ checkpoint: await openRemote(source, weights, undefined), file: undefined }];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Source {
  readonly folder: string;
  readonly files: ReadonlyMap<string, HubFile>;
  readonly urlOf: (name: string) => string;
  readonly token: string | undefined;
  readonly firstBytes: number;
}

/** Fetches ever more of the files until the headers are whole. `open` is the file to open; undefined for the folder. */
async function openRemote(
  source: Source,
  names: readonly string[],
  open: string | undefined,
): Promise<Checkpoint> {
  const largest = Math.max(...names.map((name) => sizeOf(source, name)));
  for (let bytes = source.firstBytes; ; bytes *= GROWTH) {
    for (const name of names) await fetchStart(source, name, bytes);
    const path = open === undefined ? source.folder : join(source.folder, open);
    if (open !== undefined && bytes < largest) refuseGgml(path, open);
    try {
      const checkpoint = openCheckpoint(path);
      if (bytes >= largest || headersEndBefore(checkpoint, bytes)) return checkpoint;
    } catch (error) {
      // What was not fetched reads as zeros; only the whole file can be malformed.
      const isMalformed = error instanceof MistralError && error.code === "invalid_model_file";
      if (!isMalformed || bytes >= largest) throw error;
    }
  }
}

/** The headers of a GGML file stand between its tensors, so that there is no telling them from its start. */
function refuseGgml(path: string, name: string): void {
  if (!isGgmlFile(path)) return;
  throw new MistralError(
    "unsupported_model",
    `${name} is a GGML file, whose tensors are known only when all of it is here; download it and give its path with --quantized-file`,
  );
}

/** The data of a file begins where its header ends. */
function headersEndBefore({ files, tensors }: Checkpoint, bytes: number): boolean {
  const starts = files.map(() => Number.POSITIVE_INFINITY);
  for (const { file, offset } of tensors.values()) starts[file] = Math.min(starts[file]!, offset);
  return starts.every((start) => start <= bytes);
}

function sizeOf({ files }: Source, name: string): number {
  const file = files.get(name);
  if (file === undefined) throw new MistralError("model_not_found", `the repository has no file ${name}`);
  return file.bytes;
}

/** Writes the first `bytes` of a file, and makes it as long as the whole. */
async function fetchStart(source: Source, name: string, bytes: number): Promise<void> {
  const size = sizeOf(source, name);
  const wanted = Math.min(bytes, size);
  const headers: Record<string, string> = { "User-Agent": "mistral.ts", Range: `bytes=0-${wanted - 1}` };
  if (source.token !== undefined) headers.Authorization = `Bearer ${source.token}`;
  const { response, stop } = await request(source.urlOf(name), headers, NETWORK_TIMING);
  if (response.status !== 200 && response.status !== 206) {
    stop();
    throw new MistralError("network", `${basename(name)} was answered with HTTP status ${response.status}`);
  }
  const path = join(source.folder, name);
  mkdirSync(dirname(path), { recursive: true });
  const descriptor = openSync(path, "w");
  try {
    let done = 0;
    for await (const piece of response.body ?? []) {
      done += writeSync(descriptor, piece.subarray(0, wanted - done), 0, undefined, done);
      if (done >= wanted) break;
    }
    if (done < wanted) throw new MistralError("network", `${basename(name)} was cut after ${done} bytes`);
    ftruncateSync(descriptor, size);
  } finally {
    // A server that knows no ranges would go on sending.
    stop();
    closeSync(descriptor);
  }
}
