/** Settings that belong to single commands. */

import type { SettingDeclaration } from "../types.ts";
import { COUNT_MAX } from "./common.ts";

export const COMMAND_SETTINGS = {
  seed: {
    flag: "--seed",
    toml: ["global.seed"],
    type: { kind: "u64" },
    default: 0n,
    description: "Seed of the random prompt of a benchmark",
    group: "Benchmark",
    commands: ["bench"],
  },
  promptLength: {
    flag: "--prompt-len",
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    default: 512,
    unit: "tokens",
    description: "Prompt of each sequence",
    group: "Benchmark",
    commands: ["bench"],
  },
  generatedLength: {
    flag: "--gen-len",
    type: { kind: "integer", min: 1, max: COUNT_MAX },
    default: 128,
    unit: "tokens",
    description: "Tokens each sequence generates",
    group: "Benchmark",
    commands: ["bench"],
  },
  batch: {
    flag: "--batch",
    type: { kind: "integer", min: 1, max: 4096 },
    default: 1,
    unit: "sequences",
    description: "Sequences that generate together",
    group: "Benchmark",
    commands: ["bench"],
  },
  repetitions: {
    flag: "--repetitions",
    aliases: ["--iterations"],
    type: { kind: "integer", min: 1, max: 1000 },
    default: 3,
    description: "Measured repetitions; figures are medians",
    group: "Benchmark",
    commands: ["bench"],
  },
  warmup: {
    flag: "--warmup",
    type: { kind: "integer", min: 0, max: 1000 },
    default: 1,
    description: "Repetitions before the measured ones",
    group: "Benchmark",
    commands: ["bench"],
  },
  json: {
    flag: "--json",
    type: { kind: "switch", on: [] },
    default: false,
    description: "Print one JSON object on stdout instead of a table",
    group: "Benchmark",
    commands: ["bench"],
  },
} as const satisfies Record<string, SettingDeclaration>;
