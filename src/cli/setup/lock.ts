/**
 * Lets one process at a time do set-up in a checkout. The lock is SQLite's own file lock: the operating system
 * drops it when its holder dies, however it dies, so there is no stale lock to clean up.
 */

import { mkdirSync } from "node:fs";
import { dirname } from "node:path";

const RETRY_MS = 100;

/** Runs `work` while holding the lock at `path`; `onWait` is called once when another process holds it. */
export async function withLock<T>(path: string, onWait: () => void, work: () => Promise<T>): Promise<T> {
  const { Database } = await import("bun:sqlite");
  mkdirSync(dirname(path), { recursive: true });
  const database = new Database(path, { create: true });
  try {
    for (let waited = false; !tryLock(database); waited = true) {
      if (!waited) onWait();
      await Bun.sleep(RETRY_MS);
    }
    return await work();
  } finally {
    database.close();
  }
}

/** Takes the write lock, or says that another connection has it. */
function tryLock(database: import("bun:sqlite").Database): boolean {
  try {
    database.run("BEGIN EXCLUSIVE");
    return true;
  } catch (error) {
    const code = (error as { code?: string }).code ?? "";
    if (code.startsWith("SQLITE_BUSY") || code.startsWith("SQLITE_LOCKED")) return false;
    throw error;
  }
}
