/**
 * `reach.ts`: its table from figures made up here, and the script as a process with the real llama.cpp on a tiny
 * model, where that can be installed; where it cannot, the test that needs it says so in its name.
 */

import { expect, test } from "bun:test";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Comparison, comparisonRow, pairOf } from "../../src/cli/bench/against/comparison.ts";
import { installLlama } from "../../src/cli/bench/against/llama.ts";
import { PROJECT_ROOT } from "../../src/cli/setup.ts";
import { MistralError } from "../../src/errors.ts";
import { writeOldLlamaTwin } from "../support/old-llama.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { BusyProcess } from "./reach/busy-process.ts";
import { type ReachResult, readResult, resultPath, writeResult } from "./reach/reach-result.ts";
import { reachTable } from "./reach/reach-table.ts";

const folder = temporaryFolder("reach");
const CONTEST = { way: true, disturbed: 1, rounds: 4 };
const BOUND = { tokensPerSecond: 100, by: "read" } as const;

/** `seconds` of ours and of theirs for 10 tokens of each sequence. */
function comparisonOf(
  cells: readonly (readonly [
    phase: "prefill" | "decode",
    depth: number,
    sequences: number,
    own: number,
    peer: number,
  ])[],
): Comparison {
  return {
    model: "folder/model",
    architecture: "llama",
    weight_bytes: 100_000_000,
    threads: 2,
    instruction_set: "x86_64_v4",
    kv_cache_type: "f16",
    activations: "precise",
    repetitions: 3,
    peer: { name: "llama.cpp", release: "b0.5.0-dirty", package: "a package", manner: "well, 12 MB, fast" },
    limits: { read_bytes_per_second: 3.04e10, f32_ops_per_second: 4.2e11, int8_dot_ops_per_second: 1.7e12 },
    rows: cells.map(([phase, depth, sequences, own, peer]) =>
      comparisonRow({ phase, tokens: 10, depth, sequences }, { ...CONTEST, own: [own], peer: [peer] }, BOUND),
    ),
    first_token_seconds: pairOf([0.2], [0.4]),
    load_seconds: pairOf([0.05], [0.1]),
    peak_rss_bytes: pairOf([2e8], [5e8], 0),
    disturbed_rounds: 1,
    rounds: 4,
  };
}

const RESULT: ReachResult = {
  file: "/models/small.gguf",
  threads: 2,
  against: "llama.cpp",
  activations: "precise",
  date: "2026-11-22T12:00:00.000Z",
  parts: {
    calm: comparisonOf([
      ["prefill", 0, 1, 0.05, 0.2],
      ["decode", 0, 1, 0.2, 0.4],
      ["decode", 0, 8, 1, 2],
      ["decode", 64, 1, 0.25, 1],
    ]),
    disturbed: comparisonOf([["decode", 0, 1, 0.4, 2]]),
  },
};

test("a row for each file and number of threads: both speeds, their ratio, our share of the bound", () => {
  const lines = reachTable([RESULT, { ...RESULT, threads: 1, parts: { calm: RESULT.parts.calm! } }]).split(
    "\n",
  );
  expect(lines[0]).toBe(
    "| file | threads | activations | against | decode | decode behind 64 | 8 sequences | prompt of 10 | beside a busy process | start to first token | load | peak memory |",
  );
  expect(lines[2]).toBe(
    "| small | 2 | precise | llama.cpp 0.5.0 | 50.0 / 25.0, 2.00x, 50% | 40.0 / 10.0, 4.00x, 40% | 80.0 / 40.0, 2.00x, 80% | 200 / 50.0, 4.00x, 200% | 50% / 20% | 200 ms / 400 ms | 50 ms / 100 ms | 200 MB / 500 MB |",
  );
  // What was not measured is a dash.
  expect(lines[3]).toContain("| small | 1 | precise | llama.cpp 0.5.0 | 50.0 / 25.0, 2.00x, 50% | 40.0");
  expect(lines[3]).toContain("| - | 200 ms / 400 ms |");
  expect(lines[5]).toContain("2026-11-22, x86_64_v4, 30.4 to 30.4 GB/s read.");
  expect(lines[5]).toContain("llama.cpp: well, fast; our KV cache f16. Beside");
  expect(lines[5]).toContain("Other programs used the processors in 3 of 12 rounds.");
});

test("results are kept by file, threads, precision and engine, and what is no result is refused", () => {
  const path = resultPath(folder, RESULT);
  expect(path).toBe(join(folder, "small.2.precise.llama.cpp.json"));
  expect(readResult(path)).toBeUndefined();
  writeResult(path, RESULT);
  expect(readResult(path)).toEqual(RESULT);
  const other = join(folder, "other.json");
  writeFileSync(other, "[]");
  expect(() => readResult(other)).toThrow(`${other} holds no measurements of reach.ts`);
  writeFileSync(other, "{");
  expect(() => readResult(other)).toThrow(`${other} is no JSON`);
});

test("the busy process works without a rest until it is ended, and ends by itself", async () => {
  const busy = new BusyProcess(60);
  const isAlive = (): boolean => {
    try {
      return process.kill(busy.pid, 0);
    } catch {
      return false;
    }
  };
  expect(isAlive()).toBe(true);
  await busy.end();
  expect(isAlive()).toBe(false);
  const short = new BusyProcess(0.2);
  await short.ended;
});

async function reach(...flags: string[]): Promise<{ status: number; stdout: string; stderr: string }> {
  const script = join(PROJECT_ROOT, "test/bench/reach.ts");
  const child = Bun.spawn([process.execPath, script, ...flags], { stdio: ["ignore", "pipe", "pipe"] });
  const [stdout, stderr, status] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
    child.exited,
  ]);
  return { status, stdout, stderr };
}

test("what cannot be done is refused before anything is measured", async () => {
  const path = join(folder, "results.json");
  writeResult(path, RESULT);
  expect(await reach("--markdown", path)).toMatchObject({
    status: 0,
    stdout: reachTable([RESULT]),
    stderr: "",
  });
  const none = await reach("--out", folder);
  expect(none).toMatchObject({ status: 2, stdout: "", stderr: "error: no file is named\n" });
  expect((await reach("model.gguf")).stderr).toContain("--out FOLDER says where");
  expect((await reach("--markdown", "nothing.json")).stderr).toContain("there is no nothing.json");
  const many = await reach("--out", folder, "--threads", "two", "model.gguf");
  expect(many).toMatchObject({
    status: 2,
    stderr: 'error: --threads has the value "two"; it takes numbers from 1\n',
  });
  const late = await reach("--out", join(folder, "late"), "--minutes", "0", "--threads", "1", "model.gguf");
  expect(late.status).toBe(1);
  expect(late.stderr).toContain("model.gguf, threads: 1, precise, against llama.cpp, calm: no time left");
  expect(late.stderr).toContain("1 of 1 are not complete");
}, 60_000);

/** Why there is no llama.cpp here; undefined where there is. */
const absent = await installLlama({ write() {} }).then(
  () => undefined,
  (error: unknown) => {
    if (error instanceof MistralError && error.code === "network") return error.message.split("\n")[0];
    throw error;
  },
);
if (absent !== undefined) console.warn(`reach.ts: no llama.cpp to compare with: ${absent}`);
const measures = absent === undefined ? test : (test.skip as typeof test);

measures(
  `measures what a file lacks, and no more${absent === undefined ? "" : " (SKIPPED: llama.cpp cannot be installed)"}`,
  async () => {
    const model = join(folder, "tiny.gguf");
    writeOldLlamaTwin(model, "q8_0");
    const out = join(folder, "out");
    const lengths = ["--depth", "8", "--prompt", "6", "--generate", "4", "--sequences", "2"];
    const flags = [
      "--out",
      out,
      "--minutes",
      "2",
      "--threads",
      "1",
      "--repetitions",
      "1",
      ...lengths,
      "--activations",
      "fast",
    ];
    const first = await reach(...flags, model);
    expect({ status: first.status, stderr: first.status === 0 ? "" : first.stderr }).toEqual({
      status: 0,
      stderr: "",
    });
    const row =
      /^\| tiny \| 1 \| fast \| llama\.cpp 0\.5\.0 \|( \d+(\.\d)? \/ \d+(\.\d)?, \d+\.\d\dx, \d+% \|){4}( [^|-]+ \|){3}$/m;
    expect(first.stdout).toMatch(row);

    const path = resultPath(out, { file: model, threads: 1, against: "llama.cpp", activations: "fast" });
    const before = readFileSync(path, "utf8");
    const second = await reach(...flags, model);
    expect(second).toEqual({ status: 0, stdout: first.stdout, stderr: "" });
    expect(readFileSync(path, "utf8")).toBe(before);

    // One part more, and the others as they were.
    const third = await reach(...flags, "--disturb", model);
    expect(third.stderr).toMatch(/disturbed \.\.\.\n.*disturbed: \d+ s\n$/);
    const { parts } = readResult(path)!;
    expect({ ...parts, disturbed: undefined }).toEqual({
      ...(JSON.parse(before) as ReachResult).parts,
      disturbed: undefined,
    });
    expect(third.stdout).toMatch(/\| \d+% \/ \d+% \|/);
  },
  240_000,
);
