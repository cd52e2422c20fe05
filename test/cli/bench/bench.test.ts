/** `bench` as a process: several lengths and depths, and a peer that stands in for llama-bench. */

import { expect, test } from "bun:test";
import { chmodSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { BenchReport } from "../../../src/cli/bench/report.ts";
import { readGolden, writeGgufTwin } from "../../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";
import { runCommand } from "../processes.ts";

const folder = temporaryFolder("bench");
const gguf = join(folder, "llama3.gguf");
writeGgufTwin(readGolden("llama3"), gguf);
const BENCH = [
  "bench",
  "-f",
  gguf,
  "--threads",
  "1",
  "--repetitions",
  "2",
  "--warmup",
  "0",
  "--gen-len",
  "4",
];

test("several prompts and depths are a report each", async () => {
  const { status, stdout } = await runCommand([...BENCH, "--prompt-len", "4,8", "--depth", "0,16", "--json"]);
  expect(status).toBe(0);
  const reports = JSON.parse(stdout) as BenchReport[];
  expect(reports.map(({ depth, prompt_len }) => [depth, prompt_len])).toEqual([
    [0, 4],
    [0, 8],
    [16, 4],
    [16, 8],
  ]);
  expect(new Set(reports.map(({ first_token_seconds }) => first_token_seconds)).size).toBe(1);
  const table = await runCommand([...BENCH, "--prompt-len", "4", "--depth", "16"]);
  expect(table.stdout).toMatch(/Decode \(4 tokens @ d20\) +\d/);
}, 60_000);

test("a peer does the same work after it, at the same depths", async () => {
  const calls = join(folder, "calls.txt");
  const peer = join(folder, "llama-bench");
  // Prints what llama-bench prints for a test, of the figures that are read.
  writeFileSync(
    peer,
    `#!/bin/sh
echo "$@" >> ${calls}
echo '[{ "model_filename": "x", "n_prompt": 4, "n_gen": 0, "avg_ts": 1.5, "samples_ts": [ 30.0, 10.0 ] }]'
`,
  );
  chmodSync(peer, 0o755);
  const { status, stdout } = await runCommand([
    ...BENCH,
    "--prompt-len",
    "4",
    "--depth",
    "8",
    "--peer",
    peer,
    "--json",
  ]);
  expect(status).toBe(0);
  expect((JSON.parse(stdout) as BenchReport).peer).toEqual({
    name: "llama.cpp",
    prefill_tokens_per_s: 20,
    decode_tokens_per_s: 20,
  });
  const common = `-m ${gguf} -t 1 -r 2 -ngl 0 -o json`;
  expect(readFileSync(calls, "utf8")).toBe(`${common} -p 4 -n 0 -d 8\n${common} -p 0 -n 4 -d 12\n`);
}, 60_000);

test("a peer that is not there, or cannot do the work, is told before anything runs", async () => {
  const missing = await runCommand([...BENCH, "--peer", join(folder, "nowhere")]);
  expect(missing).toMatchObject({ status: 2, stdout: "" });
  expect(missing.stderr).toContain("there is no such program");
  const batch = await runCommand([...BENCH, "--peer", "sh", "--batch", "2"]);
  expect(batch.stderr).toContain("it measures one sequence, not --batch 2");
  const failing = await runCommand([...BENCH, "--prompt-len", "4", "--peer", "false"]);
  expect(failing.status).toBe(2);
  expect(failing.stderr).toContain("ended with status 1");
}, 60_000);
