/**
 * A Hugging Face hub on the loopback interface: the routes that clients use, with large files behind a redirect to
 * a second server as on the real one, and switches for the ways in which a transfer goes wrong.
 */

import { afterAll } from "bun:test";
import { createHash } from "node:crypto";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

export interface FakeRequest {
  readonly path: string;
  readonly range: string | null;
  readonly authorization: string | null;
  readonly server: "hub" | "storage";
}

export interface FakeRepository {
  readonly commit: string;
  /** Files above `LFS_BYTES` are large files, kept on the second server. */
  readonly files: Readonly<Record<string, Uint8Array>>;
  /** Answer everything about it with this. */
  readonly refusal?: { readonly status: number; readonly errorCode?: string };
  /** Needs this token. */
  readonly token?: string;
}

const LFS_BYTES = 1000;

export class FakeHub {
  readonly requests: FakeRequest[] = [];
  readonly repositories = new Map<string, FakeRepository>();
  /** Cut the next transfers of a file after so many bytes each. */
  readonly cuts = new Map<string, number[]>();
  /** Files whose bytes arrive changed. */
  readonly corrupted = new Set<string>();
  /** Answer a request for a range with the whole file. */
  ignoreRanges = false;
  readonly #hub = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => this.#answer(request, "hub"),
  });
  readonly #storage = Bun.serve({
    port: 0,
    hostname: "127.0.0.1",
    fetch: (request) => this.#answer(request, "storage"),
  });

  /** Announces a body and closes the connection inside it. */
  readonly #severing = createServer((_, response) => {
    const { bytes, announced, start, total } = this.#severed.shift()!;
    const range = start > 0 ? { "Content-Range": `bytes ${start}-${total - 1}/${total}` } : {};
    response.writeHead(start > 0 ? 206 : 200, { "Content-Length": announced, ...range });
    response.write(bytes, () => setTimeout(() => response.destroy(), 20));
  }).listen(0, "127.0.0.1");
  readonly #severed: { bytes: Uint8Array; announced: number; start: number; total: number }[] = [];

  constructor() {
    afterAll(() => this.stop());
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#hub.port}`;
  }

  stop(): void {
    this.#hub.stop(true);
    this.#storage.stop(true);
    this.#severing.close();
  }

  transfersOf(file: string): FakeRequest[] {
    return this.requests.filter(({ path, server }) => path.endsWith(`/${file}`) && server === "storage");
  }

  #answer(request: Request, server: "hub" | "storage"): Response {
    const { pathname } = new URL(request.url);
    const authorization = request.headers.get("Authorization");
    this.requests.push({ path: pathname, range: request.headers.get("Range"), authorization, server });
    const found = this.#findRepository(pathname);
    if (found === undefined) return refusal(404, "RepoNotFound");
    const [id, repository] = found;
    if (repository.refusal !== undefined)
      return refusal(repository.refusal.status, repository.refusal.errorCode);
    if (
      server === "hub" &&
      repository.token !== undefined &&
      authorization !== `Bearer ${repository.token}`
    ) {
      return refusal(401, "RepoNotFound");
    }
    if (
      pathname === `/api/models/${id}/revision/main` ||
      pathname === `/api/models/${id}/revision/${repository.commit}`
    ) {
      return Response.json({ _id: "1", id, sha: repository.commit, private: false, downloads: 0, likes: 0 });
    }
    if (pathname === `/api/models/${id}/tree/${repository.commit}`) return Response.json(listing(repository));
    const match = /\/resolve\/([^/]+)\/(.+)$/.exec(pathname);
    const file = decodeURIComponent(match?.[2] ?? "");
    const bytes = ["main", repository.commit].includes(match?.[1] ?? "") ? repository.files[file] : undefined;
    if (bytes === undefined) {
      return refusal(404, pathname.includes("/revision/") ? "RevisionNotFound" : "EntryNotFound");
    }
    if (server === "storage") return this.#transfer(file, bytes, request.headers.get("Range"));
    const isLarge = bytes.length > LFS_BYTES;
    const headers = {
      "X-Repo-Commit": repository.commit,
      ETag: `"${isLarge ? sha256(bytes) : gitBlobHash(bytes)}"`,
      ...(isLarge ? { "X-Linked-Etag": `"${sha256(bytes)}"`, "X-Linked-Size": String(bytes.length) } : {}),
    };
    if (!isLarge) return this.#transfer(file, bytes, request.headers.get("Range"), headers);
    const location = `http://127.0.0.1:${this.#storage.port}${pathname}`;
    return new Response(null, { status: 302, headers: { ...headers, Location: location } });
  }

  #findRepository(pathname: string): [string, FakeRepository] | undefined {
    return [...this.repositories].find(
      ([id]) => pathname.startsWith(`/${id}/`) || pathname.startsWith(`/api/models/${id}/`),
    );
  }

  #transfer(
    file: string,
    content: Uint8Array,
    range: string | null,
    headers: Readonly<Record<string, string>> = {},
  ): Response {
    const bytes = this.corrupted.has(file) ? content.map((byte) => byte ^ 1) : content;
    const start = this.ignoreRanges ? 0 : Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
    const part = bytes.subarray(start);
    const cut = this.cuts.get(file)?.shift();
    if (cut !== undefined) {
      this.#severed.push({
        bytes: part.subarray(0, cut),
        announced: part.length,
        start,
        total: bytes.length,
      });
      return Response.redirect(`http://127.0.0.1:${portOf(this.#severing)}/`, 307);
    }
    if (start === 0) return new Response(part, { headers });
    const contentRange = `bytes ${start}-${bytes.length - 1}/${bytes.length}`;
    return new Response(part, { status: 206, headers: { ...headers, "Content-Range": contentRange } });
  }
}

export function sha256(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

export function gitBlobHash(bytes: Uint8Array): string {
  return createHash("sha1").update(`blob ${bytes.length}\0`).update(bytes).digest("hex");
}

function listing({ files }: FakeRepository): unknown[] {
  return Object.entries(files).map(([path, bytes]) => ({
    type: "file",
    path,
    size: bytes.length,
    oid: gitBlobHash(bytes),
    ...(bytes.length > LFS_BYTES
      ? { lfs: { oid: sha256(bytes), size: bytes.length, pointerSize: 130 } }
      : {}),
  }));
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

function refusal(status: number, errorCode?: string): Response {
  const headers = errorCode === undefined ? {} : { "X-Error-Code": errorCode };
  return Response.json(
    { error: `refused with ${status}` },
    { status, headers: headers as Record<string, string> },
  );
}
