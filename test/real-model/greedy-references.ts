/** `smollm2-greedy.jsonl`, and how a model's greedy tokens are held against it. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import { argmax, runStep } from "../models/run-sequence.ts";

export interface Reference {
  readonly prompt: string;
  readonly tokens: readonly number[];
  readonly generated: readonly number[];
  readonly margins: readonly number[];
}

/** A lead below this may be lost to the rounding of f16 keys and 16-bit activations. */
const MARGIN_MIN = 0.01;

export const REFERENCES = readFileSync(join(import.meta.dir, "smollm2-greedy.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Reference);

/** The user's words of a rendered chat. */
export function questionOf({ prompt }: Reference): string {
  return /<\|im_start\|>user\n(.*)<\|im_end\|>/.exec(prompt)![1]!;
}

export interface Difference {
  readonly index: number;
  readonly token: number;
  readonly expected: number;
}

/** The first wrong token of a model that generates for one prompt alone, or null. */
export function firstDifference(model: LoadedModel, reference: Reference): Difference | null {
  return firstDifferences(model, [reference])[0]!;
}

/**
 * Generates for all prompts at once, each as long as its reference does, or until a token whose lead is too small
 * decides otherwise. Answers the first wrong token of each, or null.
 */
export function firstDifferences(
  model: LoadedModel,
  references: readonly Reference[],
): readonly (Difference | null)[] {
  const differences = references.map((): Difference | null => null);
  let running = references.map((reference, sequence) => ({
    sequence,
    reference,
    chunk: { sequence, tokens: reference.tokens, start: 0 },
  }));
  for (let index = 0; running.length > 0; index++) {
    const logits = runStep(
      model,
      running.map(({ chunk }) => chunk),
      "last",
    );
    running = running.flatMap(({ sequence, reference, chunk }, at) => {
      const token = argmax(logits[at]![0]!);
      const expected = reference.generated[index]!;
      if (token !== expected) {
        if (reference.margins[index]! >= MARGIN_MIN) differences[sequence] = { index, token, expected };
        return [];
      }
      if (index + 1 === reference.generated.length) return [];
      return [
        {
          sequence,
          reference,
          chunk: { sequence, tokens: [token], start: chunk.start + chunk.tokens.length },
        },
      ];
    });
  }
  return differences;
}
