/** Settings of `bench-kernels`: which ops it measures, and for how long. */

import type { SettingDeclaration } from "../types.ts";
import { COUNT_MAX } from "./common.ts";

export const KERNEL_BENCH_SETTINGS = {
  kernelOps: {
    flag: "--op",
    type: { kind: "list" },
    unsetText: "all",
    description: "Ops to measure, such as matmul or paged_attention",
    group: "Benchmark",
    commands: ["bench-kernels"],
  },
  kernelTypes: {
    flag: "--type",
    type: { kind: "list" },
    unsetText: "all",
    description: "Types of weights, or of keys and values, such as q4_k or f16",
    group: "Benchmark",
    commands: ["bench-kernels"],
  },
  kernelShapes: {
    flag: "--shape",
    type: { kind: "list" },
    unsetText: "those of well-known models",
    description:
      "Shapes, or parts of their names: columns x rows of a matrix, such as 2048x8192 or any other, @2048 for attention at that depth",
    group: "Benchmark",
    commands: ["bench-kernels"],
  },
  kernelTokens: {
    flag: "--tokens",
    type: { kind: "integers", min: 1, max: COUNT_MAX },
    unsetText: "all",
    unit: "tokens",
    description: "Rows of an op: 1, 2, 4, 8 as in decode, 512 as in prefill",
    group: "Benchmark",
    commands: ["bench-kernels"],
  },
  readFrom: {
    flag: "--from",
    type: { kind: "choice", choices: ["memory", "cache"] },
    unsetText: "memory in decode, cache in prefill",
    description:
      "Where weights, keys and values are read from: copies larger than the caches, or the same ones again",
    group: "Benchmark",
    commands: ["bench-kernels"],
  },
  secondsPerRow: {
    flag: "--seconds",
    type: { kind: "number", min: 0.001, max: 60 },
    default: 0.1,
    unit: "s",
    description: "How long each row is measured",
    group: "Benchmark",
    commands: ["bench-kernels"],
  },
} as const satisfies Record<string, SettingDeclaration>;
