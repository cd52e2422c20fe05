/** Whether the plan of a model's memory counts on a re-laid copy of its weights. */

import { expect, test } from "bun:test";
import { join } from "node:path";
import { hasFasterLayout } from "../../src/backend/faster-layout.ts";
import { availableLevels } from "../../src/backend/library.ts";
import { placeModel } from "../../src/cli/memory-plan.ts";
import type { LoaderOptions } from "../../src/cli/runner-options.ts";
import { openCheckpoint } from "../../src/weights/checkpoint.ts";
import { ggufMetadata, ggufTensors, readGolden } from "../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { type GgufTensor, writeGguf } from "../support/write-gguf.ts";

const folder = temporaryFolder("memory-plan");
const golden = readGolden("llama2");
const MEMORY = { totalBytes: 2 ** 34, availableBytes: 2 ** 33 };

function asHalf(tensor: GgufTensor): GgufTensor {
  const { data, shape } = tensor;
  if (shape.length < 2) return tensor;
  const values = new Float32Array(data.slice().buffer);
  return { ...tensor, dtype: "f16", data: new Uint8Array(Float16Array.from(values).buffer) };
}

function isRepacked(path: string, options: Pick<LoaderOptions, "instructionSet" | "repack">): boolean {
  const own = { path, threads: 1, sequencesMax: 1, tokensMax: 64, blockSize: 8, kvMemoryBytes: 2 ** 24 };
  return placeModel(openCheckpoint(path), { ...own, kvCacheType: "f32", mmap: true, ...options }, MEMORY)
    .isRepacked;
}

for (const dtype of ["f32", "f16"] as const) {
  test(`${dtype}: as the kernels of the level say, if it is wanted`, () => {
    const path = join(folder, `${dtype}.gguf`);
    const rope = golden.config.rope_parameters as Readonly<Record<string, number | string>>;
    const tensors = ggufTensors(golden).map((tensor) => (dtype === "f16" ? asHalf(tensor) : tensor));
    writeGguf(path, { metadata: ggufMetadata(golden, rope), tensors });
    expect(availableLevels().length).toBeGreaterThan(0);
    for (const instructionSet of availableLevels()) {
      const wanted = hasFasterLayout(dtype, instructionSet);
      expect(isRepacked(path, { instructionSet, repack: "on" })).toBe(wanted);
      expect(isRepacked(path, { instructionSet, repack: "auto" })).toBe(wanted);
      expect(isRepacked(path, { instructionSet, repack: "off" })).toBe(false);
    }
    expect(isRepacked(path, { repack: "on" })).toBe(hasFasterLayout(dtype));
  });
}
