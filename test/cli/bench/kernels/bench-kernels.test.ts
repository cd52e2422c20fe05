/** `bench-kernels`: that every case runs, and the command as a process. */

import { afterAll, describe, expect, test } from "bun:test";
import { Device } from "../../../../src/backend/device.ts";
import { CaseProgram, copiesBeyond } from "../../../../src/cli/bench/kernels/case-program.ts";
import { kernelCases, WEIGHT_TYPES } from "../../../../src/cli/bench/kernels/cases.ts";
import { anyWeights } from "../../../../src/cli/bench/kernels/fills.ts";
import type { KernelRow, MachineReport } from "../../../../src/cli/bench/kernels/kernel-report.ts";
import { runCommand } from "../../processes.ts";

const device = Device.open({ kind: "cpu", threads: 2 });
afterAll(() => device.close());

describe("every case", () => {
  const cases = kernelCases([[256, 64]]);
  const largest = Math.max(...cases.map(({ streamedBytes }) => streamedBytes));
  // Pages come into being when they are touched, which the large cases do not.
  const buffer = device.createBuffer(2 * largest + 4096);
  const memory = { buffer, bytes: 2 * largest + 4096 };
  anyWeights(buffer.u8(0, 2 ** 22));
  afterAll(() => buffer.free());

  test("is a program that the kernels accept", () => {
    for (const kernelCase of cases) {
      CaseProgram.create(
        device,
        kernelCase,
        { copies: 2, ops: 3, repack: false, activations: "precise" },
        memory,
      ).free();
    }
  }, 60_000);

  test("of small shape runs with each number of tokens, in place and re-laid", () => {
    const small = cases.filter(({ op, shape }) => op === "rms_norm" || shape === "256x64");
    expect(small.length).toBeGreaterThan(2 * WEIGHT_TYPES.length);
    for (const kernelCase of small) {
      for (const [repack, activations] of [
        [false, "precise"],
        [true, "precise"],
        [true, "fast"],
      ] as const) {
        const plan = { copies: 2, ops: 2, repack, activations };
        const program = CaseProgram.create(device, kernelCase, plan, memory);
        for (const tokens of kernelCase.tokens) program.run(tokens);
        program.free();
      }
    }
  });

  test("says what it moves and computes", () => {
    for (const { op, dtype, tokens, bytes, operations, streamedBytes, shape } of cases) {
      for (const count of tokens) {
        expect(bytes(count)).toBeGreaterThan(0);
        expect(operations(count)).toBeGreaterThan(0);
        if (op === "matmul")
          expect({ dtype, shape, more: bytes(count) > streamedBytes }).toMatchObject({ more: true });
      }
    }
    const names = cases.flatMap(({ op, dtype, shape, tokens }) =>
      tokens.map((count) => `${op} ${dtype} ${shape} ${count}`),
    );
    expect(new Set(names).size).toBe(names.length);
  });

  test("that reads from memory has copies enough, and no more than there is room for", () => {
    expect(copiesBeyond(1000, 128, memory)).toBe(8);
    expect(copiesBeyond(1000, 100, memory)).toBe(8);
    expect(copiesBeyond(1000, 5000, memory)).toBe(1);
    expect(copiesBeyond(1000, 128, { buffer, bytes: 600 })).toBe(4);
  });
});

test("weights of any type hold numbers that nothing is slow with", () => {
  const bytes = new Uint8Array(3_000_000);
  anyWeights(bytes);
  const values = new Float32Array(bytes.buffer);
  expect(values.every((value) => value > 1e-20 && value < 1)).toBe(true);
  expect(new Set(bytes).size).toBe(16);
});

const QUICK = ["bench-kernels", "--threads", "1", "--seconds", "0.001", "--from", "cache"];

describe("the command", () => {
  test("prints the machine's limits and a row per number of tokens and layout as JSON", async () => {
    const { status, stdout, stderr } = await runCommand([
      ...QUICK,
      ...["--shape", "256x64", "--type", "Q4_K,f16", "--tokens", "1,512", "--json"],
    ]);
    expect({ status, stderr: status === 0 ? "" : stderr }).toEqual({ status: 0, stderr: "" });
    const { machine, rows } = JSON.parse(stdout) as { machine: MachineReport; rows: KernelRow[] };
    expect(machine.threads).toBe(1);
    expect(machine.memory_bytes).toBeGreaterThan(machine.cache_bytes);
    expect(machine.read_bytes_per_second).toBeGreaterThan(1e8);
    expect(machine.int8_dot_ops_per_second).toBeGreaterThan(1e9);
    const q4k = rows
      .filter(({ dtype }) => dtype === "q4_k")
      .map(({ tokens, layout }) => `${tokens} ${layout}`);
    expect(q4k.sort()).toEqual(["1 in place", "1 re-laid", "512 in place", "512 re-laid"]);
    for (const row of rows) {
      expect(row).toMatchObject({ op: "matmul", shape: "256x64", source: "cache" });
      expect(row.runs).toBeGreaterThanOrEqual(3);
      expect(row.seconds).toBeGreaterThanOrEqual(row.seconds_min);
      expect(row.share_of_bound).toBeGreaterThan(0);
    }
  }, 60_000);

  test("prints a table; --repack off leaves one layout", async () => {
    const { status, stdout } = await runCommand([
      ...QUICK,
      "--shape",
      "256x64",
      "--type",
      "q8_0",
      "--repack",
      "off",
    ]);
    expect(status).toBe(0);
    const rows = stdout.split("\n").filter((line) => line.startsWith("matmul"));
    expect(rows).toHaveLength(5);
    expect(rows.every((row) => row.includes("in place"))).toBe(true);
  }, 60_000);

  test("says so when nothing of what was asked for is re-laid", async () => {
    const { status, stdout, stderr } = await runCommand([
      ...QUICK,
      ...["--shape", "256x64", "--type", "f32", "--tokens", "1", "--repack", "on"],
    ]);
    expect({ status, stdout }).toEqual({ status: 2, stdout: "" });
    expect(stderr).toContain("error: --repack on: the kernels re-lay no weights of these types");
  }, 60_000);

  test("refuses what it does not know with what it does", async () => {
    const cases: [string[], string][] = [
      [["--op", "matmull"], 'error: flag --op has the value "matmull"; allowed: matmul, paged_attention,'],
      [["--type", "q4_9"], 'error: flag --type has the value "q4_9"; allowed: f32, f16, q4_0,'],
      [
        ["--op", "rope", "--shape", "2048x8192"],
        "error: no case has this op, type, shape and number of tokens; shapes: 16x128, 32x64;",
      ],
      [["--tokens", "3"], "error: no case has this op, type, shape and number of tokens"],
      [["--from", "disk"], 'error: flag --from has the value "disk"; allowed: one of memory, cache'],
      [["--seconds", "0"], 'error: flag --seconds has the value "0"; allowed: a number from 0.001 to 60'],
    ];
    const outcomes = await Promise.all(cases.map(([given]) => runCommand(["bench-kernels", ...given])));
    outcomes.forEach((outcome, index) => {
      expect(outcome).toMatchObject({ status: 2, stdout: "" });
      expect(outcome.stderr).toStartWith(cases[index]![1]);
    });
  }, 60_000);
});
