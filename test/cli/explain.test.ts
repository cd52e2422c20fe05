import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { runCommand } from "./processes.ts";

const folder = temporaryFolder("explain");

function rowOf(table: string, key: string): string {
  return table.split("\n").find((line) => line.trimStart().startsWith(`${key} `)) ?? "";
}

test("config explain prints every value in force and where it came from", async () => {
  const path = join(folder, "x.toml");
  writeFileSync(path, "[server]\nport = 4321\n[runtime]\nmax_seqs = 3\n");
  const environment = { KEEP_ALIVE_INTERVAL: "500", HF_TOKEN: "hf_secret", MISTRALRS_NO_MLA: "1" };
  const { status, stdout } = await runCommand(["config", "explain", "--config", path, "--max-seqs", "5"], {
    environment,
  });
  expect(status).toBe(0);
  expect(rowOf(stdout, "port")).toMatch(new RegExp(`4321 +key server\\.port in ${path}$`));
  expect(rowOf(stdout, "sequencesMax")).toMatch(/5 +flag --max-seqs$/);
  expect(rowOf(stdout, "keepAliveIntervalMs")).toMatch(/500 ms +variable KEEP_ALIVE_INTERVAL$/);
  expect(rowOf(stdout, "host")).toMatch(/0\.0\.0\.0 +default$/);
  expect(rowOf(stdout, "hubToken")).toMatch(/\(set\) +variable HF_TOKEN$/);
  expect(rowOf(stdout, "noMla")).toMatch(
    /true +variable MISTRALRS_NO_MLA; not in effect: families with latent/,
  );
  expect(stdout).not.toContain("hf_secret");
});

test("config explain KEY tells everything about one setting, by any of its names", async () => {
  const about = async (word: string) => (await runCommand(["config", "explain", word])).stdout;
  const port = await about("port");
  expect(port).toBe(await about("server.port"));
  expect(port).toMatch(/^key +port\n/);
  expect(port).toMatch(/\nallowed +a whole number from 0 to 65535\n/);
  expect(port).toMatch(/\nflag +-p, --port\n/);
  expect(port).toMatch(/\nsince +0\.1\.0\n/);
  const mmap = await about("MISTRALRS_NO_MMAP");
  expect(mmap).toMatch(/\nallowed +on for 1\n/);
  const lenient = await runCommand(["config", "explain", "keepAliveIntervalMs"], {
    environment: { KEEP_ALIVE_INTERVAL: "x" },
  });
  expect(lenient.stdout).toMatch(/\nvalue +10000 ms\n/);
  expect(lenient.stderr).toContain('warning: variable KEEP_ALIVE_INTERVAL has the value "x"; allowed:');
  const begun = await runCommand(["config", "explain", "keepAlive"]);
  expect(begun.stderr).toBe("error: keepAlive is no setting (did you mean keepAliveIntervalMs?)\n");
  const unknown = await runCommand(["config", "explain", "prot"]);
  expect({ status: unknown.status, stderr: unknown.stderr }).toEqual({
    status: 2,
    stderr: "error: prot is no setting (did you mean port?)\n",
  });
});

test("config explain --json is the same for programs", async () => {
  const { stdout } = await runCommand(["config", "explain", "--json"], {
    environment: { MISTRALRS_NO_MLA: "1" },
  });
  const rows = JSON.parse(stdout) as { key: string; value: string; source: string; status: string }[];
  expect(rows.find(({ key }) => key === "port")).toEqual({
    key: "port",
    value: "1234",
    source: "default",
    status: "in effect",
  });
  expect(rows.find(({ key }) => key === "noMla")).toMatchObject({ status: "not in effect" });
});
