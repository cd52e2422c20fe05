/**
 * The default model's greedy tokens on a GPU against float64, as `greedy.test.ts` holds the processor's. The emulated
 * device would take hours for it.
 */

import { afterAll, expect, test } from "bun:test";
import { loadModel } from "../../src/models/load-model.ts";
import { resolveModel } from "../../src/weights/resolve.ts";
import { openCudaLevels } from "../kernels/cuda-devices.ts";
import { firstDifference, questionOf, REFERENCES } from "./greedy-references.ts";

if (openCudaLevels().some(({ level }) => level === "cuda")) {
  const { checkpointPath } = await resolveModel({
    model: undefined,
    file: undefined,
    onProgress: () => {},
    environment: process.env,
  });
  const model = await loadModel({
    path: checkpointPath,
    device: { kind: "cuda", index: 0 },
    threads: 1,
    sequencesMax: 2,
    tokensMax: 128,
    contextLengthMax: 1024,
    kvCacheType: "f16",
    blockSize: 32,
    mmap: true,
  });
  afterAll(() => model.close());
  test.each(REFERENCES.map((reference) => ({ ...reference, question: questionOf(reference) })))(
    "$question",
    (reference) => expect(firstDifference(model, reference)).toBeNull(),
  );
} else {
  test("there is no GPU: the emulated device runs smaller models", () => {
    expect(openCudaLevels().every(({ level }) => level === "cuda emulated")).toBe(true);
  });
}
