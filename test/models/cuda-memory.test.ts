/** What a model may count on of a device's memory. */

import { expect, test } from "bun:test";
import { cudaMemory } from "../../src/models/cuda-memory.ts";

const DEVICE = { free: 70, total: 80 };
const SYSTEM = { totalBytes: 1000, availableBytes: 600 };

test("a device with memory of its own has that", () => {
  expect(cudaMemory(DEVICE, false, 0.5, SYSTEM)).toEqual({ totalBytes: 80, availableBytes: 70 });
});

test("one without has a share of the system's, three quarters when nothing is said", () => {
  expect(cudaMemory(DEVICE, true, undefined, SYSTEM)).toEqual({ totalBytes: 750, availableBytes: 450 });
  expect(cudaMemory(DEVICE, true, 0.5, SYSTEM)).toEqual({ totalBytes: 500, availableBytes: 300 });
});
