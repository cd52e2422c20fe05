/** The resource budget of the CUDA kernels: its parser and comparison everywhere, the compilers where ptxas is. */

import { expect, test } from "bun:test";
import { compare, findPtxas, measure, parseReport, readBudget, table, type Uses } from "./cuda-budget.ts";

test("the words of ptxas are understood", () => {
  const report = [
    "ptxas info    : Compiling entry function 'one' for 'sm_80'",
    "    16 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads",
    "ptxas info    : Used 29 registers, used 1 barriers, 128 bytes smem, 440 bytes cmem[0]",
    "ptxas info    : Compiling entry function 'two' for 'sm_80'",
    "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads",
    "ptxas info    : Used 8 registers, used 0 barriers, 376 bytes cmem[0]",
  ];
  expect(parseReport(report.join("\n"))).toEqual({
    one: { registers: 29, spilledBytes: 20, sharedBytes: 128 },
    two: { registers: 8, spilledBytes: 0, sharedBytes: 0 },
  });
});

test("growth, new kernels and lost ones are told; less is fine", () => {
  const use = (registers: number, spilledBytes = 0) => ({ registers, spilledBytes, sharedBytes: 0 });
  const allowed = { "clang sm_80": { a: use(20), b: use(20), gone: use(1) }, "nvcc sm_80": { a: use(1) } };
  const found = { "clang sm_80": { a: use(19), b: use(20, 4), fresh: use(1) } };
  const problems = [
    "clang sm_80: b spilledBytes 0 -> 4",
    "clang sm_80: fresh has no budget",
    "clang sm_80: gone is in the budget but not compiled",
  ];
  const one = (uses: Uses, version = "13.0.88") => ({ ptxas: version, uses });
  expect(compare(one(found), one(allowed))).toEqual(problems);
  const more = { "clang sm_80": { ...found["clang sm_80"], a: use(21) } };
  expect(compare(one(more), one(allowed))).toEqual(["clang sm_80: a registers 20 -> 21", ...problems]);
  // Another assembler hands out registers in its own way.
  expect(compare(one(more, "12.4.1"), one(allowed))).toEqual(problems);
});

/** One of each compiler; `bun test/kernels/cuda-budget.ts` compares them all. */
const TARGETS = ["clang sm_80", "nvcc sm_90"];

const ptxas = findPtxas();
// The name says what was checked on this machine.
test(ptxas === undefined
  ? "no ptxas here: the budget is on file, no kernel was measured"
  : "no kernel grew", async () => {
  const budget = readBudget();
  expect(Object.keys(budget.uses)).toContain("clang sm_80");
  if (ptxas === undefined) return;
  const found = await measure(ptxas, TARGETS);
  console.log(table(found));
  expect(compare(found, budget)).toEqual([]);
}, 600_000);
