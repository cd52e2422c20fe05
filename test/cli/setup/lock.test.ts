import { expect, test } from "bun:test";
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { withLock } from "../../../src/cli/setup/lock.ts";

const LOCK_MODULE = join(import.meta.dir, "../../../src/cli/setup/lock.ts");

async function inFolder(work: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "mistral-lock-"));
  try {
    await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A process that takes the lock, notes when it enters and leaves, and stays inside for a while. */
function contender(folder: string, name: string, insideMs: number) {
  const script = `
    import { appendFileSync } from "node:fs";
    import { withLock } from ${JSON.stringify(LOCK_MODULE)};
    const note = (text) => appendFileSync(${JSON.stringify(join(folder, "log"))}, text + " ${name}\\n");
    await withLock(${JSON.stringify(join(folder, "deep", "lock"))}, () => note("waits"), async () => {
      note("enters");
      await Bun.sleep(${insideMs});
      note("leaves");
    });
  `;
  return Bun.spawn([process.execPath, "-e", script], { stdout: "ignore", stderr: "inherit" });
}

async function waitForLine(folder: string, line: string): Promise<void> {
  for (
    const start = Date.now();
    !readFileSync(join(folder, "log"), "utf8").includes(line);
    await Bun.sleep(5)
  ) {
    if (Date.now() - start > 10_000) throw new Error(`"${line}" never came`);
  }
}

test("processes that start together take turns", () =>
  inFolder(async (folder) => {
    const children = ["a", "b", "c"].map((name) => contender(folder, name, 60));
    expect(await Promise.all(children.map((child) => child.exited))).toEqual([0, 0, 0]);
    const turns = readFileSync(join(folder, "log"), "utf8")
      .trim()
      .split("\n")
      .filter((line) => !line.startsWith("waits"));
    expect(turns).toHaveLength(6);
    for (let index = 0; index < turns.length; index += 2) {
      expect(turns[index + 1]).toBe(turns[index]!.replace("enters", "leaves"));
    }
  }));

test("a killed holder leaves nothing to clean up", () =>
  inFolder(async (folder) => {
    writeFileSync(join(folder, "log"), "");
    const holder = contender(folder, "holder", 60_000);
    await waitForLine(folder, "enters holder");
    let waited = false;
    const turn = withLock(
      join(folder, "deep", "lock"),
      () => {
        waited = true;
      },
      async () => appendFileSync(join(folder, "log"), "enters heir\n"),
    );
    await Bun.sleep(50);
    expect(readFileSync(join(folder, "log"), "utf8")).not.toContain("heir");
    holder.kill("SIGKILL");
    await turn;
    expect(waited).toBe(true);
    expect(readFileSync(join(folder, "log"), "utf8")).toContain("enters heir");
  }));

test("work that fails gives the lock back and the error on", () =>
  inFolder(async (folder) => {
    const failing = withLock(
      join(folder, "lock"),
      () => {},
      async () => {
        throw new Error("no space");
      },
    );
    expect(failing).rejects.toThrow("no space");
    await failing.catch(() => {});
    expect(
      await withLock(
        join(folder, "lock"),
        () => {},
        async () => "mine",
      ),
    ).toBe("mine");
  }));
