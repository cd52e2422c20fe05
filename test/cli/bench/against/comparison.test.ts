import { expect, test } from "bun:test";
import {
  type Comparison,
  comparisonRow,
  comparisonTable,
  pairOf,
} from "../../../../src/cli/bench/against/comparison.ts";

const CELL = { phase: "decode", tokens: 10, depth: 512, sequences: 8 } as const;
const CONTEST = { own: [2, 1, 4], peer: [4, 5, 8], way: false, disturbed: 0, rounds: 3 };
const BOUND = { tokensPerSecond: 160, by: "read" } as const;

const COMPARISON: Comparison = {
  model: "folder/model",
  architecture: "llama",
  weight_bytes: 100_000_000,
  threads: 2,
  instruction_set: "x86_64_v4",
  kv_cache_type: "f16",
  activations: "precise",
  repetitions: 3,
  peer: {
    name: "llama.cpp",
    release: "0.5.0",
    package: "@node-llama-cpp/linux-x64 3.22.1",
    manner: "as well as it can",
  },
  limits: { read_bytes_per_second: 3.04e10, f32_ops_per_second: 4.2e11, int8_dot_ops_per_second: 1.7e12 },
  rows: [
    comparisonRow(
      { phase: "prefill", tokens: 128, depth: 0, sequences: 1 },
      { ...CONTEST, way: true },
      { ...BOUND, by: "int8" },
    ),
    comparisonRow(CELL, CONTEST, BOUND),
  ],
  first_token_seconds: pairOf([0.25, 0.2, 0.3], [0.5, 0.5]),
  load_seconds: pairOf([0.1], [0.05]),
  peak_rss_bytes: pairOf([2e8], [5e8], 0),
  disturbed_rounds: 0,
  rounds: 6,
};

test("speeds count all sequences; medians over the turns, the ratio of medians, shares of the bound", () => {
  expect(comparisonRow(CELL, CONTEST, BOUND)).toEqual({
    ...CELL,
    tokens_per_s: { median: 40, min: 20, max: 80 },
    peer_tokens_per_s: { median: 16, min: 10, max: 20 },
    peer_flash_attention: false,
    ratio: 2.5,
    bound_tokens_per_s: 160,
    bound_by: "read",
    share_of_bound: 0.25,
    peer_share_of_bound: 0.1,
  });
  expect(pairOf([1, 3], [5])).toEqual({ own: 2, peer: 5 });
});

test("the table has a line for each piece of work, and what only whole processes tell", () => {
  const lines = comparisonTable(COMPARISON).split("\n");
  expect(lines[2]).toContain("0.5.0 (@node-llama-cpp/linux-x64 3.22.1), as well as it can");
  expect(lines[3]).toContain("30.4 GB/s read at the size of the weights, 420 Gop/s f32, 1700 Gop/s int8");
  expect(lines[5]).toMatch(/^ +tokens\/s +llama\.cpp +flash +ratio +bound +by +reached +llama\.cpp$/);
  expect(lines[6]).toMatch(/^Prefill \(128 tokens\) +64\.0 +25\.6 +on +2\.50x +160 +int8 +40% +16%$/);
  expect(lines[7]).toMatch(
    /^Decode \(10 tokens @ d512, 8 sequences\) +40\.0 +16\.0 +off +2\.50x +160 +read +25% +10%$/,
  );
  expect(lines[6]!.length).toBe(lines[7]!.length);
  expect(lines[10]).toMatch(/^Start to first token +250 ms +500 ms +2\.00x$/);
  expect(lines[11]).toMatch(/^Load +100 ms +50 ms +0\.50x$/);
  expect(lines[12]).toMatch(/^Peak memory +200 MB +500 MB +2\.50x$/);
});

test("an engine that has but one way has no column for it", () => {
  const row = comparisonRow(CELL, { ...CONTEST, way: undefined }, BOUND);
  expect(row).not.toHaveProperty("peer_flash_attention");
  const peer = { ...COMPARISON.peer, name: "onnxruntime" };
  const lines = comparisonTable({ ...COMPARISON, peer, rows: [row] }).split("\n");
  expect(lines[5]).toMatch(/^ +tokens\/s +onnxruntime +ratio +bound +by +reached +onnxruntime$/);
  expect(lines[6]).toMatch(/8 sequences\) +40\.0 +16\.0 +2\.50x +160 +read +25% +10%$/);
  expect(lines[6]!.length).toBe(lines[5]!.length);
});

test("without whole processes there is no table of them", () => {
  const { first_token_seconds: _first, load_seconds: _load, peak_rss_bytes: _peak, ...rest } = COMPARISON;
  const text = comparisonTable(rest);
  expect(text).toContain("Decode (10 tokens @ d512, 8 sequences)");
  expect(text).not.toContain("Peak memory");
});

test("a tile unit is named, and so is what disturbed the turns", () => {
  const limits = { ...COMPARISON.limits, int8_tile_ops_per_second: 1.2e13 };
  const text = comparisonTable({ ...COMPARISON, limits, disturbed_rounds: 4 });
  expect(text).toContain("1700 Gop/s int8 (12000 in the tile unit)");
  expect(text).toContain("Other programs used the processors in 4 of 6 rounds");
  expect(comparisonTable(COMPARISON)).not.toContain("Other programs");
});
