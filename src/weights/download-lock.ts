/**
 * Keeps two processes, or two machines on one file system, from writing one download at once: a lock file that names
 * its owner and whose modification time the owner renews. The lock of a process that died is taken away: at once
 * when it died on this machine, else when nobody renewed it for a while.
 */

import { readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";

const RENEW_MS = 2_000;
const STALE_MS = 20_000;
const POLL_MS = 250;

/** The locks that this process holds: a lock with its number that is not here is that of a process before it. */
const held = new Set<string>();

/** Runs `action` while holding the lock file at `path`, waiting for its present owner first. */
export async function withLock<T>(path: string, action: () => Promise<T>): Promise<T> {
  while (!tryLock(path)) {
    if (ageMs(path) > STALE_MS || ownerDied(path)) rmSync(path, { force: true });
    else await Bun.sleep(POLL_MS);
  }
  held.add(path);
  const renewal = setInterval(() => renew(path), RENEW_MS);
  try {
    return await action();
  } finally {
    clearInterval(renewal);
    held.delete(path);
    rmSync(path, { force: true });
  }
}

function tryLock(path: string): boolean {
  try {
    writeFileSync(path, `${hostname()} ${process.pid}`, { flag: "wx" });
    return true;
  } catch (error) {
    if ((error as { code?: unknown }).code === "EEXIST") return false;
    throw error;
  }
}

function ageMs(path: string): number {
  const status = statSync(path, { throwIfNoEntry: false });
  return status === undefined ? 0 : Date.now() - status.mtimeMs;
}

function ownerDied(path: string): boolean {
  let owner: string;
  try {
    owner = readFileSync(path, "utf8");
  } catch {
    return false; // released meanwhile
  }
  const [host, pid] = owner.split(" ");
  if (host !== hostname() || !/^\d+$/.test(pid ?? "")) return false;
  if (Number(pid) === process.pid) return !held.has(path);
  try {
    process.kill(Number(pid), 0);
    return false;
  } catch (error) {
    return (error as { code?: unknown }).code === "ESRCH";
  }
}

function renew(path: string): void {
  try {
    utimesSync(path, new Date(), new Date());
  } catch {
    // The lock file was taken away, with its folder perhaps; the transfer itself notices what matters.
  }
}
