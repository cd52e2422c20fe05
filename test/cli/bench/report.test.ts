import { expect, test } from "bun:test";
import { type BenchSubject, benchTable, summarise } from "../../../src/cli/bench/report.ts";

const SUBJECT: BenchSubject = {
  model: "folder/model.gguf",
  architecture: "llama",
  threads: 2,
  instructionSet: "x86_64_v4",
  activations: "precise",
  loadSeconds: 0.123456,
  firstTokenSeconds: 1.5,
  weightBytes: 100_000_000,
  peakRssBytes: 250_000_000,
};
const WORKLOAD = { batch: 4, depth: 0, promptLength: 100, generatedLength: 50, seed: 0n };

test("speeds count the whole batch; medians, with the slowest and fastest repetition", () => {
  const report = summarise(SUBJECT, WORKLOAD, [
    { prefillSeconds: 1, decodeSeconds: 2 },
    { prefillSeconds: 4, decodeSeconds: 1 },
    { prefillSeconds: 2, decodeSeconds: 4 },
  ]);
  expect(report).toMatchObject({
    prefill_tokens_per_s: 200,
    prefill_tokens_per_s_min: 100,
    prefill_tokens_per_s_max: 400,
    decode_tokens_per_s: 100,
    decode_tokens_per_s_min: 50,
    decode_tokens_per_s_max: 200,
    load_seconds: 0.1235,
    peak_rss_bytes: 250_000_000,
    repetitions: 3,
  });
});

test("a GPU is named instead of threads", () => {
  const times = [{ prefillSeconds: 1, decodeSeconds: 1 }];
  const report = summarise(
    { ...SUBJECT, threads: 0, instructionSet: "sm_90", device: "Some GPU (cuda:0)" },
    WORKLOAD,
    times,
  );
  expect(report.device).toBe("Some GPU (cuda:0)");
  expect(benchTable([report])).toMatch(/^Device +Some GPU \(cuda:0\), sm_90, activations precise$/m);
  expect(summarise(SUBJECT, WORKLOAD, times)).not.toHaveProperty("device");
});

test("the median of an even number of repetitions lies between the middle two", () => {
  const times = [1, 2, 4, 8].map((seconds) => ({ prefillSeconds: seconds, decodeSeconds: seconds }));
  expect(summarise(SUBJECT, WORKLOAD, times).prefill_tokens_per_s).toBe(150);
  expect(summarise(SUBJECT, WORKLOAD, times.slice(0, 1)).prefill_tokens_per_s).toBe(400);
});

test("the table names everything that was measured, in aligned columns", () => {
  const table = benchTable([summarise(SUBJECT, WORKLOAD, [{ prefillSeconds: 1, decodeSeconds: 1 }])]);
  for (const text of ["folder/model.gguf", "x86_64_v4", "100 MB", "250 MB", "1.5 s", "400.0", "200.0"]) {
    expect(table).toContain(text);
  }
  const rows = table.trimEnd().split("\n").slice(-2);
  expect(rows[0]!.length).toBe(rows[1]!.length);
});

test("several depths have rows each", () => {
  const times = [{ prefillSeconds: 1, decodeSeconds: 1 }];
  const reports = [0, 1024].map((depth) => summarise(SUBJECT, { ...WORKLOAD, depth }, times));
  const lines = benchTable(reports).trimEnd().split("\n").slice(-5);
  expect(lines[0]).toMatch(/ tokens\/s +min +max$/);
  expect(lines[1]).toMatch(/^Prefill \(100 tokens, 4 sequences\) .* 400\.0$/);
  expect(lines[2]).toMatch(/^Decode \(50 tokens @ d100, 4 sequences\) .* 200\.0$/);
  expect(lines[3]).toMatch(/^Prefill \(100 tokens @ d1024, 4 sequences\) /);
  expect(lines[4]).toMatch(/^Decode \(50 tokens @ d1124, 4 sequences\) /);
});
