import { expect, test } from "bun:test";
import {
  kernelRow,
  kernelTable,
  type MachineReport,
} from "../../../../src/cli/bench/kernels/kernel-report.ts";
import { productCases } from "../../../../src/cli/bench/kernels/product-cases.ts";

const MEMORY_BYTES = 1e9;
/** Memory at 10 GB/s, caches at 100; 100 Gop/s of f32, 1000 of int8. */
const LIMITS = {
  readBytesPerSecond: (bytes: number) => (bytes >= MEMORY_BYTES ? 1e10 : 1e11),
  opsPerSecond: (arithmetic: string) => (arithmetic === "f32" ? 1e11 : 1e12),
};
const MACHINE: MachineReport = {
  threads: 2,
  instruction_set: "x86_64_v4",
  activations: "precise",
  cache_bytes: 5e8,
  memory_bytes: MEMORY_BYTES,
  read_bytes_per_second: 1e10,
  f32_ops_per_second: 1e11,
  bf16_tile_ops_per_second: 4e12,
  int8_dot_ops_per_second: 1e12,
  int8_tile_ops_per_second: 8e12,
};

const [decode, prefill] = productCases("q4_0", [1024, 2048]) as [
  ReturnType<typeof productCases>[0] & object,
  ReturnType<typeof productCases>[0] & object,
];
const WEIGHT_BYTES = ((1024 * 2048) / 32) * 18;
const ACTIVATION_BYTES = (1024 + 2048) * 4;

test("few rows are held up by reading weights, many by arithmetic", () => {
  const one = kernelRow(
    { kernelCase: decode, layout: "in place", source: "memory", tokens: 1, times: [4e-4, 2e-4, 3e-4] },
    LIMITS,
    MEMORY_BYTES,
  );
  const bytes = WEIGHT_BYTES + ACTIVATION_BYTES;
  expect(one).toEqual({
    op: "matmul",
    dtype: "q4_0",
    shape: "1024x2048",
    layout: "in place",
    tokens: 1,
    source: "memory",
    runs: 3,
    seconds: 3e-4,
    seconds_min: 2e-4,
    bytes_per_second: Math.round(bytes / 3e-4),
    ops_per_second: Math.round((2 * 1024 * 2048) / 3e-4),
    bound: "read",
    share_of_bound: Number((bytes / 1e10 / 3e-4).toPrecision(4)),
  });
  const many = kernelRow(
    { kernelCase: prefill, layout: "re-laid", source: "cache", tokens: 512, times: [1e-2, 2e-2] },
    LIMITS,
    MEMORY_BYTES,
  );
  expect(many.bound).toBe("int8");
  expect(many.seconds).toBe(1.5e-2);
  expect(many.share_of_bound).toBe(Number(((2 * 512 * 1024 * 2048) / 1e12 / 1.5e-2).toPrecision(4)));
});

test("what the caches hold is judged by the caches", () => {
  const measured = { kernelCase: decode, layout: "in place", tokens: 1, times: [1e-4] } as const;
  const memory = kernelRow({ ...measured, source: "memory" }, LIMITS, MEMORY_BYTES);
  const cache = kernelRow({ ...measured, source: "cache" }, LIMITS, MEMORY_BYTES);
  expect(cache.share_of_bound).toBeCloseTo(memory.share_of_bound / 10, 4);
});

test("a type whose blocks do not divide the columns has no such case", () => {
  expect(productCases("q4_k", [576, 1536])).toEqual([]);
  expect(productCases("q4_0", [576, 1536])).toHaveLength(2);
});

test("the table names the limits and has a line of the same length for each row", () => {
  const measured = { kernelCase: decode, source: "memory", times: [1.5e-4] } as const;
  const rows = [
    kernelRow({ ...measured, layout: "in place", tokens: 1 }, LIMITS, MEMORY_BYTES),
    kernelRow({ ...measured, layout: undefined, tokens: 8 }, LIMITS, MEMORY_BYTES),
  ];
  expect(rows[1]).not.toHaveProperty("layout");
  const lines = kernelTable(MACHINE, rows).trimEnd().split("\n");
  expect(lines[1]).toContain("10.0 GB/s from 1.00 GB of memory; caches of 500 MB");
  expect(lines[3]).toMatch(/^bf16 +4000 Gop\/s in the tile unit$/);
  expect(lines[4]).toContain("1000 Gop/s, 8000 Gop/s in the tile unit");
  const [head, first, second] = lines.slice(-3) as [string, string, string];
  expect(head).toMatch(/^op +type +shape +layout +tokens +from +time +GB\/s +Gop\/s +bound/);
  expect(first).toMatch(/^matmul +q4_0 +1024x2048 +in place +1 +memory +150\.0 us +7\.95 +28\.0 +read +79%$/);
  expect(second.length).toBe(first.length);
});
