/**
 * `bench --against llama.cpp` as a process, with the real llama.cpp on a tiny model. Where it is not installed yet it
 * is (30 MB); where that cannot be, the tests that need it say so in their names.
 */

import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Comparison } from "../../../../src/cli/bench/against/comparison.ts";
import { installLlama } from "../../../../src/cli/bench/against/llama.ts";
import { MistralError } from "../../../../src/errors.ts";
import { writeOldLlamaTwin } from "../../../support/old-llama.ts";
import { temporaryFolder } from "../../../support/temporary-folder.ts";
import { runCommand } from "../../processes.ts";

const folder = temporaryFolder("against");
const model = join(folder, "model.gguf");
writeOldLlamaTwin(model, "q8_0");
const AGAINST = ["bench", "--against", "llama.cpp", "-f", model, "--threads", "1"];
const SMALL = [
  "--prompt-len",
  "4,8",
  "--depth",
  "8,0",
  "--batch",
  "2,1",
  "--gen-len",
  "6",
  "--repetitions",
  "2",
];

/** Why there is no llama.cpp here; undefined where there is. */
const absent = await installLlama({ write() {} }).then(
  () => undefined,
  (error: unknown) => {
    if (error instanceof MistralError && error.code === "network") return error.message.split("\n")[0];
    throw error;
  },
);
if (absent !== undefined) console.warn(`bench --against: no llama.cpp to compare with: ${absent}`);
const needsLlama = (name: string): [string, typeof test] =>
  absent === undefined
    ? [name, test]
    : [`${name} (SKIPPED: llama.cpp cannot be installed)`, test.skip as typeof test];

const [comparesName, compares] = needsLlama("compares every prompt, depth and batch, and whole processes");
compares(
  comparesName,
  async () => {
    const { status, stdout, stderr } = await runCommand([...AGAINST, ...SMALL, "--json"]);
    expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
    const comparison = JSON.parse(stdout) as Comparison;
    expect(comparison.peer.name).toBe("llama.cpp");
    expect(comparison.peer.release).toContain("0.5.0");
    expect(comparison.rows.map((row) => [row.phase, row.tokens, row.depth, row.sequences])).toEqual([
      ["prefill", 4, 0, 1],
      ["prefill", 8, 0, 1],
      ["decode", 6, 0, 1],
      ["decode", 6, 0, 2],
      ["decode", 6, 8, 1],
      ["decode", 6, 8, 2],
    ]);
    for (const row of comparison.rows) {
      for (const speed of [row.tokens_per_s, row.peer_tokens_per_s]) {
        expect(speed.min).toBeGreaterThan(0);
        expect(speed.median).toBeGreaterThanOrEqual(speed.min);
        expect(speed.max).toBeGreaterThanOrEqual(speed.median);
      }
      expect(row.ratio).toBeCloseTo(row.tokens_per_s.median / row.peer_tokens_per_s.median, 1);
      expect(row.share_of_bound).toBeLessThan(1);
    }
    const { first_token_seconds, load_seconds, peak_rss_bytes } = comparison as Required<Comparison>;
    for (const pair of [first_token_seconds, load_seconds, peak_rss_bytes]) {
      expect(pair.own).toBeGreaterThan(0);
      expect(pair.peer).toBeGreaterThan(0);
    }
    expect(peak_rss_bytes.peer).toBeGreaterThan(5e6);
    expect(first_token_seconds.peer).toBeGreaterThan(load_seconds.peer);
  },
  120_000,
);

const [tableName, table] = needsLlama("prints a table, with another KV cache and without re-laid weights");
table(
  tableName,
  async () => {
    const flags = [
      "--activations",
      "fast",
      "--pa-cache-type",
      "f32",
      "--repack",
      "off",
      "--prompt-len",
      "4",
      "--gen-len",
      "4",
    ];
    const { status, stdout, stderr } = await runCommand([...AGAINST, ...flags, "--repetitions", "1"]);
    expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
    expect(stdout).toMatch(/^Threads +1, \S+, KV cache f32, activations fast$/m);
    expect(stdout).toMatch(/^Prefill \(4 tokens\) +\d/m);
    expect(stdout).toMatch(/^Start to first token +\d/m);
  },
  120_000,
);

const [brokenName, broken] = needsLlama("tells what llama.cpp says of a file that it cannot load");
broken(
  brokenName,
  async () => {
    const { writeGgufTwin, readGolden } = await import("../../../reference/tiny-checkpoint.ts");
    const path = join(folder, "no-tokenizer.gguf");
    writeGgufTwin(readGolden("llama3"), path);
    const { status, stderr } = await runCommand(["bench", "--against", "llama.cpp", "-f", path, ...SMALL]);
    expect(status).toBe(2);
    expect(stderr).toContain("error: --against llama.cpp: it ended with status 2");
    expect(stderr).toContain("tokenizer.ggml.model");
  },
  60_000,
);

test("an engine that is not known is refused with those that are, and so is what llama.cpp does not read", async () => {
  const unknown = await runCommand(["bench", "--against", "mistralrs", "-f", model]);
  expect(unknown).toMatchObject({ status: 2, stdout: "" });
  expect(unknown.stderr).toBe(
    'error: flag --against has the value "mistralrs"; allowed: one of llama.cpp, onnxruntime\n',
  );
  const other = join(folder, "model.bin");
  writeFileSync(other, "x");
  const wrong = await runCommand(["bench", "--against", "llama.cpp", "-f", other]);
  expect(wrong.stderr).toContain(`--against llama.cpp: it reads GGUF files, not ${other}`);
  const narrow = await runCommand([
    "bench",
    "--against",
    "llama.cpp",
    "-f",
    model,
    "--pa-cache-type",
    "f8e4m3",
  ]);
  expect(narrow.stderr).toContain("--against llama.cpp: it has no KV cache of f8e4m3; compare with");
});

test("without a network it says what it wanted and what to check", async () => {
  const environment = {
    XDG_CACHE_HOME: join(folder, "cache"),
    BUN_INSTALL_CACHE_DIR: join(folder, "bun"),
    NPM_CONFIG_REGISTRY: "http://127.0.0.1:9",
  };
  const { status, stdout, stderr } = await runCommand(AGAINST, { environment });
  expect(status).not.toBe(0);
  expect(stdout).toBe("");
  expect(stderr).toMatch(/error: @node-llama-cpp\/\S+ 3\.22\.1 could not be installed/);
  expect(stderr).toContain("Check that this machine reaches the npm registry");
}, 60_000);
