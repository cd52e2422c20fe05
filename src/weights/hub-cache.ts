/**
 * The cache of the Hugging Face hub in the layout of the Python client, shared with it:
 * `models--org--name/{blobs/<hash>, refs/<revision>, snapshots/<commit>/<file> -> ../../blobs/<hash>}`.
 */

import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { dirname, join, relative, sep } from "node:path";

const FILES_MAX = 10_000;
const DEPTH_MAX = 8;

export class HubCacheRepository {
  readonly folder: string;

  constructor(cacheFolder: string, modelId: string) {
    this.folder = join(cacheFolder, `models--${modelId.replaceAll("/", "--")}`);
  }

  /** The snapshot folder of a branch, tag or commit, when there is one. */
  findSnapshot(revision: string): string | undefined {
    const refPath = join(this.folder, "refs", revision);
    const commit = existsSync(refPath) ? readFileSync(refPath, "utf8").trim() : revision;
    if (!/^[\w.-]+$/.test(commit)) return undefined;
    const folder = this.snapshotFolder(commit);
    return existsSync(folder) ? folder : undefined;
  }

  snapshotFolder(commit: string): string {
    return join(this.folder, "snapshots", commit);
  }

  blobPath(hash: string): string {
    return join(this.folder, "blobs", hash);
  }

  /** Makes `file` of a snapshot point at its blob; replaces a link that points elsewhere. */
  linkFile(commit: string, file: string, hash: string): string {
    const path = join(this.snapshotFolder(commit), file);
    mkdirSync(dirname(path), { recursive: true });
    const temporary = `${path}.${process.pid}.new`;
    rmSync(temporary, { force: true });
    try {
      symlinkSync(relative(dirname(path), this.blobPath(hash)), temporary);
    } catch (error) {
      // File systems and accounts without symbolic links get a copy, as with the Python client.
      if (!["EPERM", "ENOTSUP", "ENOSYS"].includes(String((error as { code?: unknown }).code))) throw error;
      copyFileSync(this.blobPath(hash), temporary);
    }
    renameSync(temporary, path);
    return path;
  }

  /** Records which commit a branch or tag stands for; last, so that a reader finds the commit complete. */
  writeRef(revision: string, commit: string): void {
    if (revision === commit) return;
    const path = join(this.folder, "refs", revision);
    mkdirSync(dirname(path), { recursive: true });
    const temporary = `${path}.${process.pid}.new`;
    writeFileSync(temporary, commit);
    renameSync(temporary, path);
  }
}

/** The files below `folder`, with `/` between parts; links to nothing are left out. */
export function listFilesBelow(folder: string): string[] {
  const names: string[] = [];
  const visit = (current: string, depth: number): void => {
    for (const entry of readdirSync(current, { withFileTypes: true })) {
      const path = join(current, entry.name);
      if (entry.isDirectory()) {
        if (depth < DEPTH_MAX) visit(path, depth + 1);
      } else if (names.length < FILES_MAX && existsSync(path)) {
        names.push(relative(folder, path).split(sep).join("/"));
      }
    }
  };
  visit(folder, 0);
  return names.sort();
}
