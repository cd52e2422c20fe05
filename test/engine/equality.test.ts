/**
 * The same request gets the same tokens under all circumstances, on the real kernels: cache cold, warm and evicted;
 * alone and in a batch; preempted or not; its prompt whole or in chunks; the cache paged or not; on one thread or two.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { join } from "node:path";
import { resolveModel } from "../../src/weights/resolve.ts";
import { readGolden, writeHuggingFace } from "../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import {
  ALL_CIRCUMSTANCES,
  type Circumstances,
  closeMachines,
  compareCells,
  loadMachines,
  type MachineModel,
  targetsFor,
} from "./matrix.ts";

const BLOCK_SIZE = 8;

describe.each([
  ["llama3", "f16"],
  ["qwen2-window", "f16"],
  ["qwen3", "f16"],
  ["gemma3", "f16"],
  ["llama3", "f8e4m3"],
] as const)("a tiny %s with a cache of %s", (name, kvCacheType) => {
  let models: readonly MachineModel[] = [];
  const folder = temporaryFolder("equality");
  beforeAll(async () => {
    const path = join(folder, name);
    writeHuggingFace(readGolden(name), path);
    models = await loadMachines(path, BLOCK_SIZE, kvCacheType);
  });
  afterAll(() => closeMachines(models));

  test("says the same in every cell of the matrix", () => {
    const { cells, texts } = compareCells(models, BLOCK_SIZE, targetsFor(BLOCK_SIZE), ALL_CIRCUMSTANCES);
    // 24 circumstances on each paged machine, the 12 without preemption on the others; 7 targets.
    expect(cells).toBe(7 * (2 * 24 + 2 * 12));
    // Targets that all say the same would prove nothing.
    expect(texts.size).toBe(7);
  }, 60_000);
});

/** Each value of each circumstance, and most pairs of them. */
const SOME_CIRCUMSTANCES: readonly Circumstances[] = [
  { cache: "cold", company: "alone", preempted: false, chunks: false },
  { cache: "warm", company: "batch", preempted: false, chunks: true },
  { cache: "evicted", company: "batch", preempted: true, chunks: false },
  { cache: "warm", company: "alone", preempted: true, chunks: true },
];

test("the default model says the same in some cells of it", async () => {
  const request = { model: undefined, file: undefined, onProgress: () => {}, environment: process.env };
  const { checkpointPath } = await resolveModel(request);
  const models = await loadMachines(checkpointPath, BLOCK_SIZE);
  try {
    const targets = targetsFor(BLOCK_SIZE).filter(({ promptLength }) => promptLength > 2 * BLOCK_SIZE);
    const { cells, texts } = compareCells(models, BLOCK_SIZE, targets, SOME_CIRCUMSTANCES);
    expect(cells).toBe(2 * (2 * 4 + 2 * 2));
    expect(texts.size).toBe(2);
  } finally {
    closeMachines(models);
  }
}, 120_000);
