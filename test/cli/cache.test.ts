import { expect, test } from "bun:test";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { runCommand } from "./processes.ts";

const home = temporaryFolder("cache");
const ENVIRONMENT = { HF_HOME: home, XDG_CACHE_HOME: join(home, "xdg") };
const DAY_MS = 86_400_000;

/** A model in the layout of the hub's cache: a blob, and a snapshot that points at it. */
function writeModel(id: string, bytes: number, ageDays: number): string {
  const folder = join(home, "hub", `models--${id.replace("/", "--")}`);
  mkdirSync(join(folder, "blobs"), { recursive: true });
  mkdirSync(join(folder, "snapshots", "abc"), { recursive: true });
  const blob = join(folder, "blobs", "0123");
  writeFileSync(blob, new Uint8Array(bytes));
  symlinkSync("../../blobs/0123", join(folder, "snapshots", "abc", "model.gguf"));
  const used = new Date(Date.now() - ageDays * DAY_MS);
  utimesSync(blob, used, used);
  return folder;
}

test("models are listed with size and age, the last used first, and deleted by their id", async () => {
  writeModel("owner/old", 3_000_000, 20);
  const recent = writeModel("owner/recent", 1_500_000, 0);
  mkdirSync(join(home, "hub", "datasets--owner--x"));

  const { status, stdout } = await runCommand(["cache", "list"], { environment: ENVIRONMENT });
  expect(status).toBe(0);
  expect(stdout).toBe(`HuggingFace Model Cache

Model            Size  Last Used
owner/recent  1.50 MB  today
owner/old     3.00 MB  2 weeks ago

2 models, 4.50 MB in ${join(home, "hub")}
`);
  const listed = await runCommand(["cache", "list", "--json"], { environment: ENVIRONMENT });
  expect(JSON.parse(listed.stdout)).toMatchObject({
    total_bytes: 4_500_000,
    models: [{ model: "owner/recent", size_bytes: 1_500_000 }, { model: "owner/old" }],
  });

  const wrong = await runCommand(["cache", "delete", "-m", "owner/recnt"], { environment: ENVIRONMENT });
  expect(wrong.status).toBe(1);
  expect(wrong.stderr).toContain("the cache has no model owner/recnt (did you mean owner/recent?)");
  const deleted = await runCommand(["cache", "delete", "-m", "owner/recent"], { environment: ENVIRONMENT });
  expect(deleted).toMatchObject({ status: 0, stdout: "✅ deleted owner/recent: 1.50 MB freed\n" });
  expect(existsSync(recent)).toBe(false);
  const unnamed = await runCommand(["cache", "delete"], { environment: ENVIRONMENT });
  expect(unnamed.stderr).toBe("error: cache delete needs the model: cache delete -m ID\n");
});

test("a token is saved for its owner alone; what is none is refused and not repeated", async () => {
  const given = await runCommand(["login", "--token", "hf_one"], { environment: ENVIRONMENT });
  const path = join(home, "token");
  expect(given).toMatchObject({ status: 0, stdout: `✅ token saved in ${path}\n` });
  expect(readFileSync(path, "utf8")).toBe("hf_one");
  const typed = await runCommand(["login"], { environment: ENVIRONMENT, input: "hf_two\n" });
  expect(typed.status).toBe(0);
  expect(readFileSync(path, "utf8")).toBe("hf_two");
  expect(statSync(path).mode & 0o777).toBe(0o600);
  for (const outcome of [
    await runCommand(["login", "--token", "secret"], { environment: ENVIRONMENT }),
    await runCommand(["login"], { environment: ENVIRONMENT, input: "secret\n" }),
  ]) {
    expect(outcome.status).toBe(2);
    expect(outcome.stderr).toContain("hf_");
    expect(outcome.stderr + outcome.stdout).not.toContain("secret");
  }
  expect(readFileSync(path, "utf8")).toBe("hf_two");
  const nothing = await runCommand(["login"], { environment: ENVIRONMENT });
  expect(nothing).toMatchObject({
    status: 2,
    stderr: "error: no token was given; type it in, or give it with --token\n",
  });
});

test("words without a command behind them name those there are", async () => {
  const { status, stderr } = await runCommand(["cache"]);
  expect({ status, stderr }).toEqual({
    status: 2,
    stderr: "error: cache needs a command behind it: cache list or cache delete\n",
  });
});
