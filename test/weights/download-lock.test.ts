import { expect, test } from "bun:test";
import { existsSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname } from "node:os";
import { join } from "node:path";
import { withLock } from "../../src/weights/download-lock.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const root = temporaryFolder("lock");
let lockNumber = 0;
const newPath = (): string => join(root, `${lockNumber++}.lock`);

async function elapsedMs(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

test("holders take turns, and the lock is gone after the last, failed ones included", async () => {
  const path = newPath();
  let inside = 0;
  let most = 0;
  const hold = () =>
    withLock(path, async () => {
      most = Math.max(most, ++inside);
      await Bun.sleep(10);
      inside--;
    });
  await Promise.all([hold(), hold(), hold()]);
  expect(most).toBe(1);
  await expect(withLock(path, () => Promise.reject(new Error("inside")))).rejects.toThrow("inside");
  await hold();
  expect(existsSync(path)).toBe(false);
});

test("the lock of a process that died here is taken at once", async () => {
  const path = newPath();
  const child = Bun.spawn(["true"]);
  await child.exited;
  // A container often gives the same number to the process that it starts again.
  for (const pid of [child.pid, process.pid]) {
    writeFileSync(path, `${hostname()} ${pid}`);
    expect(await elapsedMs(() => withLock(path, async () => {}))).toBeLessThan(200);
  }
});

test("the lock of a live process, or of another machine, is waited for", async () => {
  for (const owner of [`${hostname()} ${process.ppid}`, "elsewhere 1"]) {
    const path = newPath();
    writeFileSync(path, owner);
    setTimeout(() => rmSync(path), 300);
    expect(await elapsedMs(() => withLock(path, async () => {}))).toBeGreaterThan(250);
  }
});

test("a lock that nobody renewed for long is taken", async () => {
  const path = newPath();
  writeFileSync(path, "elsewhere 1");
  const longAgo = new Date(Date.now() - 60_000);
  utimesSync(path, longAgo, longAgo);
  expect(await elapsedMs(() => withLock(path, async () => {}))).toBeLessThan(200);
});
