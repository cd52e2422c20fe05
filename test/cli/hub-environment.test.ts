import { afterEach, beforeEach, expect, test } from "bun:test";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { hubEnvironment } from "../../src/cli/hub-environment.ts";
import { resolveSettings } from "../../src/config/resolve.ts";
import type { SettingKey } from "../../src/config/settings.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const folder = temporaryFolder("token");
const NAMES = [
  "HF_TOKEN",
  "HF_HUB_TOKEN",
  "HF_TOKEN_PATH",
  "HF_HUB_OFFLINE",
  "HF_HUB_CACHE",
  "MY_TOKEN",
] as const;
const saved = new Map(NAMES.map((name) => [name, process.env[name]]));
beforeEach(() => {
  for (const name of NAMES) delete process.env[name];
  process.env.HF_TOKEN = "hf_from_variable";
});
afterEach(() => {
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

function environment(flags: Partial<Record<SettingKey, string>>, notes: string[] = []) {
  const given = new Map(
    Object.entries(flags).map(([key, text]) => [key as SettingKey, { name: key, text: text ?? "" }]),
  );
  return hubEnvironment(resolveSettings("serve", { flags: given }).settings, (note) => notes.push(note));
}

/** The token that the hub's client finds in these variables. */
function tokenOf(variables: ReturnType<typeof environment>): string | undefined {
  const path = variables.HF_TOKEN_PATH;
  const fromFile = path !== undefined && existsSync(path) ? readFileSync(path, "utf8") : "";
  return variables.HF_TOKEN || variables.HF_HUB_TOKEN || fromFile || undefined;
}

test("--token-source: cache leaves the variables alone, the others are the only token", () => {
  process.env.MY_TOKEN = "hf_mine";
  const file = join(folder, "token");
  writeFileSync(file, "hf_file\n");
  expect(tokenOf(environment({}))).toBe("hf_from_variable");
  expect(tokenOf(environment({ hubTokenSource: "cache" }))).toBe("hf_from_variable");
  expect(tokenOf(environment({ hubTokenSource: "none" }))).toBeUndefined();
  expect(tokenOf(environment({ hubTokenSource: "literal:hf_given" }))).toBe("hf_given");
  expect(tokenOf(environment({ hubTokenSource: "env:MY_TOKEN" }))).toBe("hf_mine");
  expect(tokenOf(environment({ hubTokenSource: `path:${file}` }))).toBe("hf_file");
});

test("a source that has none means no token, and a line that says so", () => {
  const notes: string[] = [];
  expect(tokenOf(environment({ hubTokenSource: "env:MY_TOKEN" }, notes))).toBeUndefined();
  expect(tokenOf(environment({ hubTokenSource: `path:${join(folder, "none")}` }, notes))).toBeUndefined();
  expect(notes).toEqual([
    "--token-source: the variable MY_TOKEN is not set; no token is used",
    `--token-source: ${join(folder, "none")} cannot be read; no token is used`,
  ]);
});

test("flags stand above the variables they are named after", () => {
  process.env.HF_HUB_CACHE = "/variable";
  expect(environment({ hubCache: "/flag" }).HF_HUB_CACHE).toBe("/flag");
  expect(environment({}).HF_HUB_CACHE).toBe("/variable");
  expect(environment({}).HF_HUB_OFFLINE).toBe("0");
});
