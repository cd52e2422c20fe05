/**
 * The default model's greedy tokens against float64: `smollm2-greedy.jsonl` holds ten prompts, 64 tokens each,
 * and by how much each token leads the next best when transformers' own model code is evaluated in float64 on
 * the dequantised file (`../reference/check_greedy_float64.py` makes the margins).
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { availableLevels } from "../../src/backend/library.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { resolveModel } from "../../src/weights/resolve.ts";
import { type Difference, firstDifferences, questionOf, REFERENCES } from "./greedy-references.ts";

const { checkpointPath } = await resolveModel({
  model: undefined,
  file: undefined,
  onProgress: () => {},
  environment: process.env,
});

describe.each(availableLevels())("on %s", (instructionSet) => {
  for (const mmap of [true, false]) {
    describe(mmap ? "mapped, all at once" : "read into memory, alone", async () => {
      const model = await loadModel({
        path: checkpointPath,
        threads: 2,
        sequencesMax: REFERENCES.length,
        tokensMax: 512,
        contextLengthMax: 128,
        kvCacheType: "f16",
        blockSize: 32,
        mmap,
        instructionSet,
      });
      afterAll(() => model.close());
      // One prompt is enough to see that memory and mapping hold the same bytes.
      const prompts = mmap ? REFERENCES : REFERENCES.slice(0, 1);
      let differences: readonly (Difference | null)[] = [];
      beforeAll(() => {
        differences = firstDifferences(model, prompts);
      });
      test.each(prompts.map((reference, index) => ({ question: questionOf(reference), index })))(
        "$question",
        ({ index }) => expect(differences[index]).toBeNull(),
      );
    });
  }
});
