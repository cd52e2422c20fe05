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

/** A lead below this may be lost to the rounding of f16 keys and 15-bit activations. */
const MARGIN_MIN = 0.01;

export const REFERENCES = readFileSync(join(import.meta.dir, "smollm2-greedy.jsonl"), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line) as Reference);

/** The user's words of a rendered chat. */
export function questionOf({ prompt }: Reference): string {
  return /<\|im_start\|>user\n(.*)<\|im_end\|>/.exec(prompt)![1]!;
}

/**
 * Generates as long as the reference does, or until a token whose lead is too small decides otherwise. Answers the
 * first wrong token, or null.
 */
export function firstDifference(
  model: LoadedModel,
  { tokens, generated, margins }: Reference,
): { readonly index: number; readonly token: number; readonly expected: number } | null {
  let chunk = tokens;
  let start = 0;
  for (const [index, expected] of generated.entries()) {
    const token = argmax(runStep(model, [{ sequence: 0, tokens: chunk, start }], "last")[0]![0]!);
    if (token !== expected) return margins[index]! < MARGIN_MIN ? null : { index, token, expected };
    start += chunk.length;
    chunk = [token];
  }
  return null;
}
