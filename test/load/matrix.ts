/**
 * The whole matrix of circumstances on a real model, by hand: `bun test/load/matrix.ts [--file model.gguf] [--block 8]`.
 * Every request must get the same tokens with the prefix cache cold, warm and evicted, alone and in a batch, preempted or
 * not, its prompt whole or in chunks, the cache paged or not, on one thread and on two. Ends with status 1 at the first
 * cell that differs, and names it.
 */

import { parseArgs } from "node:util";
import { resolveModel } from "../../src/weights/resolve.ts";
import {
  ALL_CIRCUMSTANCES,
  closeMachines,
  compareCells,
  loadMachines,
  targetsFor,
} from "../engine/matrix.ts";

const { values } = parseArgs({
  options: { file: { type: "string" }, block: { type: "string", default: "8" } },
});
const blockSize = Number(values.block);
const source = { model: undefined, file: values.file, onProgress: () => {}, environment: process.env };
const { checkpointPath } = await resolveModel(source);
const machines = await loadMachines(checkpointPath, blockSize);
const started = performance.now();
let total = 0;
try {
  for (const target of targetsFor(blockSize)) {
    const { cells } = compareCells(machines, blockSize, [target], ALL_CIRCUMSTANCES);
    total += cells;
    const how = target.sampling.temperature === 0 ? "greedy" : "drawn with every rule";
    console.log(`prompt of ${target.promptLength} tokens, ${how}: the same tokens in ${cells} cells`);
  }
} finally {
  closeMachines(machines);
}
console.log(
  `${total} cells in ${((performance.now() - started) / 1000).toFixed(0)} s, all the same: ${checkpointPath}`,
);
