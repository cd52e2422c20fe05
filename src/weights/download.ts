/**
 * One file from the network to the disk: streamed into `<path>.incomplete`, resumed there after a cut - in this
 * process or a later one -, checked against its size and hash, then renamed. Knows no hub and no index.
 */

import {
  closeSync,
  createReadStream,
  existsSync,
  ftruncateSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import { MistralError } from "../errors.ts";
import { withLock } from "./download-lock.ts";
import { type NetworkTiming, networkReason, request, shownUrl } from "./network.ts";

export interface Download {
  readonly url: string | URL;
  readonly headers: Readonly<Record<string, string>>;
  /** Where the finished file goes. When it exists, nothing is done. */
  readonly path: string;
  readonly bytes: number;
  /** `git-blob` is the SHA-1 that git names a file by. */
  readonly check: { readonly algorithm: "sha256" | "git-blob"; readonly digest: string };
  /** The error for an answer that is neither 200 nor 206. Default: one that says the status. */
  readonly refusal?: (response: Response) => MistralError;
}

/** Called with the bytes of the file that are on the disk so far; goes back when a transfer starts again. */
export type OnBytes = (bytesOnDisk: number) => void;

/** Downloads unless the file is there already. Throws `network`, or what `refusal` makes of an answer. */
export async function downloadFile(
  download: Download,
  timing: NetworkTiming,
  onBytes: OnBytes,
): Promise<void> {
  mkdirSync(dirname(download.path), { recursive: true });
  await withLock(`${download.path}.lock`, async () => {
    if (!existsSync(download.path)) await new Transfer(download, timing, onBytes).run();
    onBytes(download.bytes);
  });
}

/** A transfer that was cut and may go on. */
class Cut extends Error {}

class Transfer {
  readonly #download: Download;
  readonly #timing: NetworkTiming;
  readonly #onBytes: OnBytes;
  readonly #partPath: string;

  constructor(download: Download, timing: NetworkTiming, onBytes: OnBytes) {
    this.#download = download;
    this.#timing = timing;
    this.#onBytes = onBytes;
    this.#partPath = `${download.path}.incomplete`;
  }

  async run(): Promise<void> {
    const resumed = this.#partBytes() > 0;
    if (await this.#fetchAndCheck()) return;
    // What an earlier run left may be the culprit; one transfer from the first byte settles it.
    if (resumed && (await this.#fetchAndCheck())) return;
    const { url, check } = this.#download;
    throw new MistralError(
      "network",
      `${shownUrl(url)}: the bytes do not have the ${check.algorithm} ${check.digest}`,
    );
  }

  /** Fetches what is missing, then renames the file when its hash is right and deletes it when it is not. */
  async #fetchAndCheck(): Promise<boolean> {
    const hash = await this.#fetchWithRetries();
    if (hash.digest("hex") !== this.#download.check.digest.toLowerCase()) {
      rmSync(this.#partPath, { force: true });
      return false;
    }
    renameSync(this.#partPath, this.#download.path);
    return true;
  }

  async #fetchWithRetries(): Promise<Bun.CryptoHasher> {
    let failures = 0;
    while (true) {
      const before = this.#partBytes();
      try {
        return await this.#fetchOnce(before);
      } catch (error) {
        if (!(error instanceof Cut)) throw error;
        // Only attempts that brought nothing count: a slow, cutting line gets there in the end.
        failures = this.#partBytes() > before ? 1 : failures + 1;
        const delayMs = this.#timing.retryDelaysMs[failures - 1];
        if (delayMs === undefined) throw this.#failed(error.message);
        await Bun.sleep(delayMs);
      }
    }
  }

  /** Makes the part whole, going on from its first `have` bytes, and returns the hash fed with all of it. */
  async #fetchOnce(have: number): Promise<Bun.CryptoHasher> {
    const { bytes, check } = this.#download;
    let start = have > bytes ? 0 : have;
    const descriptor = openSync(this.#partPath, start > 0 ? "r+" : "w");
    try {
      let hash = newHash(check.algorithm, bytes);
      if (start > 0)
        for await (const piece of createReadStream(this.#partPath, { end: start - 1 })) hash.update(piece);
      if (start === bytes) return hash;
      const { response, stop } = await this.#request(start);
      if (start > 0 && !continues(response, start)) {
        // The server sends the whole file again, or a range that was not asked for.
        if (response.status === 206) throw new Cut("the server answered with another range");
        ftruncateSync(descriptor, 0);
        start = 0;
        hash = newHash(check.algorithm, bytes);
      }
      await this.#receive(response, stop, start, (piece, offset) => {
        this.#write(descriptor, piece, offset);
        hash.update(piece);
      });
      return hash;
    } finally {
      closeSync(descriptor);
    }
  }

  async #request(start: number): Promise<{ response: Response; stop: () => void }> {
    const { url, headers, refusal } = this.#download;
    // Only the plain bytes can be resumed and measured.
    const range: Record<string, string> = start > 0 ? { Range: `bytes=${start}-` } : {};
    let answer: Awaited<ReturnType<typeof request>>;
    try {
      answer = await request(url, { ...headers, "Accept-Encoding": "identity", ...range }, this.#timing);
    } catch (error) {
      throw new Cut(networkReason(error));
    }
    const { status } = answer.response;
    if (status === 200 || status === 206) return answer;
    answer.stop();
    if (status === 416) rmSync(this.#partPath, { force: true });
    if (status === 408 || status === 416 || status === 429 || status >= 500)
      throw new Cut(`HTTP status ${status}`);
    throw refusal?.(answer.response) ?? this.#failed(`HTTP status ${status}`);
  }

  /** Hands every piece of the body to `keep` with its offset in the file. Throws `Cut` when the body ends early. */
  async #receive(
    response: Response,
    stop: () => void,
    start: number,
    keep: (piece: Uint8Array, offset: number) => void,
  ): Promise<void> {
    const { bytes } = this.#download;
    let offset = start;
    let stalled = false;
    const onStall = (): void => {
      stalled = true;
      stop();
    };
    let timer = setTimeout(onStall, this.#timing.stallMs);
    try {
      for await (const piece of response.body ?? []) {
        clearTimeout(timer);
        if (offset + piece.length > bytes) {
          stop();
          rmSync(this.#partPath, { force: true });
          throw this.#failed(`more than the expected ${bytes} bytes arrived`);
        }
        keep(piece, offset);
        offset += piece.length;
        this.#onBytes(offset);
        timer = setTimeout(onStall, this.#timing.stallMs);
      }
    } catch (error) {
      if (error instanceof MistralError) throw error;
      throw new Cut(stalled ? `nothing arrived for ${this.#timing.stallMs} ms` : networkReason(error));
    } finally {
      clearTimeout(timer);
    }
    if (offset < bytes) throw new Cut(`the transfer ended after ${offset} of ${bytes} bytes`);
  }

  #write(descriptor: number, piece: Uint8Array, offset: number): void {
    try {
      for (let done = 0; done < piece.length; ) {
        done += writeSync(descriptor, piece, done, piece.length - done, offset + done);
      }
    } catch (error) {
      const reason = `cannot write ${this.#partPath}: ${networkReason(error)}`;
      throw new MistralError(
        "network",
        `${reason}; make room, or move the cache with HF_HOME or XDG_CACHE_HOME`,
      );
    }
  }

  #partBytes(): number {
    return statSync(this.#partPath, { throwIfNoEntry: false })?.size ?? 0;
  }

  #failed(reason: string): MistralError {
    return new MistralError("network", `${shownUrl(this.#download.url)}: ${reason}`);
  }
}

function newHash(algorithm: Download["check"]["algorithm"], bytes: number): Bun.CryptoHasher {
  return algorithm === "sha256"
    ? new Bun.CryptoHasher("sha256")
    : new Bun.CryptoHasher("sha1").update(`blob ${bytes}\0`);
}

/** Whether an answer goes on exactly where the part ends. */
function continues(response: Response, start: number): boolean {
  return (
    response.status === 206 && response.headers.get("Content-Range")?.startsWith(`bytes ${start}-`) === true
  );
}
