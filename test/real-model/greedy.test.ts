/**
 * The default model's greedy tokens against float64: `smollm2-greedy.jsonl` holds ten prompts, 64 tokens each,
 * and by how much each token leads the next best when transformers' own model code is evaluated in float64 on
 * the dequantised file (`../reference/check_greedy_float64.py` makes the margins).
 */

import { afterAll, describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { availableLevels } from "../../src/backend/library.ts";
import { loadModel } from "../../src/models/load-model.ts";
import { resolveModel } from "../../src/weights/resolve.ts";
import { runStep } from "../models/run-sequence.ts";

interface Reference {
  readonly prompt: string;
  readonly tokens: readonly number[];
  readonly generated: readonly number[];
  readonly margins: readonly number[];
}

/** A lead below this may be lost to the rounding of f16 keys and 15-bit activations. */
const MARGIN_MIN = 0.01;

const references = readFileSync(join(import.meta.dir, "smollm2-greedy.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Reference);

const { checkpointPath } = await resolveModel({
  model: undefined,
  file: undefined,
  onProgress: () => {},
  environment: process.env,
});

/** The user's words of a rendered chat. */
function questionOf({ prompt }: Reference): string {
  return /<\|im_start\|>user\n(.*)<\|im_end\|>/.exec(prompt)![1]!;
}

function argmax(logits: Float32Array): number {
  let best = 0;
  for (let token = 1; token < logits.length; token++) if (logits[token]! > logits[best]!) best = token;
  return best;
}

describe.each(availableLevels())("on %s", (instructionSet) => {
  for (const mmap of [true, false]) {
    describe(mmap ? "mapped" : "read into memory", async () => {
      const model = await loadModel({
        path: checkpointPath,
        threads: 2,
        sequencesMax: 2,
        tokensMax: 128,
        contextLengthMax: 1024,
        kvCacheType: "f16",
        blockSize: 32,
        mmap,
        instructionSet,
      });
      afterAll(() => model.close());
      // One prompt is enough to see that memory and mapping hold the same bytes.
      const prompts = mmap ? references : references.slice(0, 1);
      test.each(prompts.map((reference) => ({ ...reference, question: questionOf(reference) })))(
        "$question",
        ({ tokens, generated, margins }) => {
          let chunk: readonly number[] = tokens;
          let start = 0;
          for (const [index, expected] of generated.entries()) {
            const token = argmax(runStep(model, [{ sequence: 0, tokens: chunk, start }], "last")[0]![0]!);
            if (token !== expected && margins[index]! < MARGIN_MIN) return;
            expect({ index, token }).toEqual({ index, token: expected });
            start += chunk.length;
            chunk = [token];
          }
        },
      );
    });
  }
});
