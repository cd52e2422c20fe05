/** `bench` as a process: several lengths, depths and batches. */

import { expect, test } from "bun:test";
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

test("several batches are a report each", async () => {
  const { status, stdout } = await runCommand([...BENCH, "--prompt-len", "4", "--batch", "1,3", "--json"]);
  expect(status).toBe(0);
  expect((JSON.parse(stdout) as BenchReport[]).map(({ batch }) => batch)).toEqual([1, 3]);
}, 60_000);

test("what the context or the pool does not hold is refused before anything runs", async () => {
  const long = await runCommand([...BENCH, "--prompt-len", "100000", "--depth", "8"]);
  expect(long).toMatchObject({ status: 2, stdout: "" });
  expect(long.stderr).toContain("--depth 8, --prompt-len 100000 and --gen-len 4 make 100,012 tokens");
  const many = await runCommand([...BENCH, "--prompt-len", "100", "--batch", "64", "--pa-memory-mb", "1"]);
  expect(many.status).not.toBe(0);
  expect(many.stderr).toContain("64 sequences of 104 tokens need");
}, 60_000);

test("the times of stages name what they compute and add up to the steps", async () => {
  const { status, stdout } = await runCommand([...BENCH, "--prompt-len", "8", "--stage-times", "--json"]);
  expect(status).toBe(0);
  const { stage_times: phases } = JSON.parse(stdout) as BenchReport;
  expect(phases?.map(({ phase, steps }) => [phase, steps])).toEqual([
    ["prefill", 1],
    ["decode", 4],
  ]);
  for (const { rows } of phases!) {
    const stagesOf = (what: string) => rows.find((row) => row.what === what)?.stages;
    expect(stagesOf("matmul qkv")).toBe(readGolden("llama3").config.num_hidden_layers as number);
    expect(stagesOf("rope + kv_write")).toBe(stagesOf("matmul qkv"));
    expect(stagesOf("sample")).toBe(1);
    for (const { work_seconds, wait_seconds } of rows) {
      expect(work_seconds).toBeGreaterThan(0);
      expect(wait_seconds).toBeGreaterThanOrEqual(0);
      expect(work_seconds + wait_seconds).toBeLessThan(10);
    }
  }
  const table = await runCommand([...BENCH, "--prompt-len", "8", "--stage-times"]);
  expect(table.stdout).toMatch(/^decode, 4 steps +stages +ms a step +waiting$/m);
  expect(table.stdout).toMatch(/^matmul logits +1 +\d/m);
  const without = await runCommand([...BENCH, "--prompt-len", "8", "--json"]);
  expect(JSON.parse(without.stdout)).not.toHaveProperty("stage_times");
  const against = await runCommand([...BENCH, "--stage-times", "--against", "llama.cpp"]);
  expect(against).toMatchObject({ status: 2, stdout: "" });
  expect(against.stderr).toContain("--stage-times");
}, 60_000);
