import { describe, expect, test } from "bun:test";
import { blocksOfWorkload, runWorkload, type Workload } from "../../../src/cli/bench/workload.ts";
import { CheckingRunner } from "./checking-runner.ts";

function run(workload: Workload, tokensMax: number, blockSize = 8) {
  const runner = new CheckingRunner({
    sequences: workload.batch,
    blocks: blocksOfWorkload(workload, blockSize),
    tokensMax,
    blockSize,
  });
  const times = runWorkload(runner, workload, () => runner.nowMs);
  return { runner, times };
}

describe("a workload", () => {
  test("of one sequence: full prefill steps, then one token a step", () => {
    const { runner, times } = run({ batch: 1, depth: 0, promptLength: 20, generatedLength: 5, seed: 1n }, 8);
    expect(runner.steps).toEqual([
      { tokens: 8, sequences: 1, rows: 0 },
      { tokens: 8, sequences: 1, rows: 0 },
      { tokens: 4, sequences: 1, rows: 1 },
      ...Array.from({ length: 5 }, () => ({ tokens: 1, sequences: 1, rows: 1 })),
    ]);
    expect(times).toEqual({ prefillSeconds: 0.02, decodeSeconds: 0.005 });
  });

  test("of several sequences: prompts share steps, every decode step holds the whole batch", () => {
    const { runner } = run({ batch: 3, depth: 0, promptLength: 10, generatedLength: 4, seed: 1n }, 16);
    expect(runner.steps.slice(0, 2)).toEqual([
      { tokens: 16, sequences: 2, rows: 1 },
      { tokens: 14, sequences: 2, rows: 2 },
    ]);
    expect(runner.steps.slice(2)).toEqual(
      Array.from({ length: 4 }, () => ({ tokens: 3, sequences: 3, rows: 3 })),
    );
  });

  test("whose prompts end exactly at a full step", () => {
    const { runner } = run({ batch: 2, depth: 0, promptLength: 8, generatedLength: 1, seed: 1n }, 16);
    expect(runner.steps).toEqual([
      { tokens: 16, sequences: 2, rows: 2 },
      { tokens: 2, sequences: 2, rows: 2 },
    ]);
  });

  test("at a depth computes what comes before first, and measures only the prompt and the decode", () => {
    const { runner, times } = run({ batch: 2, depth: 20, promptLength: 6, generatedLength: 3, seed: 1n }, 16);
    expect(runner.steps).toEqual([
      { tokens: 16, sequences: 1, rows: 0 },
      { tokens: 16, sequences: 2, rows: 0 },
      { tokens: 8, sequences: 1, rows: 0 },
      { tokens: 12, sequences: 2, rows: 2 },
      ...Array.from({ length: 3 }, () => ({ tokens: 2, sequences: 2, rows: 2 })),
    ]);
    expect(times).toEqual({ prefillSeconds: 0.012, decodeSeconds: 0.006 });
  });

  test("feeds each sequence its own token back", () => {
    const { runner } = run({ batch: 2, depth: 0, promptLength: 3, generatedLength: 6, seed: 9n }, 4, 16);
    for (const first of [16, 32]) {
      const tokens = Array.from({ length: 9 }, (_, index) => runner.stored.get(first + index)!);
      for (let index = 3; index < 9; index++) expect(tokens[index]).toBe((tokens[index - 1]! + 1) % 1000);
    }
  });

  test("has the prompt that its seed says, and another seed another", () => {
    const tokens = (seed: bigint) => [
      ...run({ batch: 1, depth: 0, promptLength: 50, generatedLength: 1, seed }, 64).runner.stored.values(),
    ];
    expect(tokens(7n)).toEqual(tokens(7n));
    expect(tokens(7n)).not.toEqual(tokens(8n));
    expect(tokens(7n)).not.toEqual(tokens(7n + (1n << 40n)));
    expect(new Set(tokens(7n)).size).toBeGreaterThan(30);
  });
});
