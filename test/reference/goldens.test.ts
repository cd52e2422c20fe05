/**
 * Logits and hidden states of tiny random models against transformers' (float32), from safetensors and from the GGUF twin.
 * Tolerance: the largest difference in a row over the row's largest logit is below 1e-4.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadModel, type ModelLoadOptions } from "../../src/models/load-model.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import { argmax, runStep } from "../models/run-sequence.ts";
import { GOLDEN_NAMES, type Golden, readGolden, writeGgufTwin, writeHuggingFace } from "./tiny-checkpoint.ts";

const TOLERANCE = 1e-4;

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "mistral-goldens-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const OPTIONS: Omit<ModelLoadOptions, "path"> = {
  threads: 2,
  sequencesMax: 4,
  tokensMax: 128,
  contextLengthMax: 128,
  kvCacheType: "f32",
  kvMemoryBytes: 64 << 20,
  blockSize: 8,
  mmap: true,
};

function expectClose(rows: readonly Float32Array[], golden: Golden): void {
  let scale = 0;
  for (const [key, expected] of Object.entries(golden.logits)) {
    const actual = rows[Number(key)]!;
    expect(actual.length).toBe(expected.length);
    const largest = Math.max(...expected.map(Math.abs));
    scale = Math.max(scale, largest);
    const worst = Math.max(...expected.map((value, index) => Math.abs(value - actual[index]!)));
    if (!(worst / largest < TOLERANCE)) throw new Error(`row ${key}: relative error ${worst / largest}`);
  }
  rows.forEach((row, index) => {
    if (golden.margins[index]! > 2 * TOLERANCE * scale) {
      expect(`row ${index}: ${argmax(row)}`).toBe(`row ${index}: ${golden.top1[index]}`);
    }
  });
}

/** What the last step left of the hidden states of the whole prompt. */
function expectHidden({ outputs }: LoadedModel, { hidden, tokens }: Golden): void {
  const width = hidden.last.length;
  const row = (index: number) => outputs.hidden.subarray(index * width, (index + 1) * width);
  const mean = hidden.mean.map(
    (_, index) => tokens.reduce((sum, _token, position) => sum + row(position)[index]!, 0) / tokens.length,
  );
  for (const [actual, expected] of [
    [row(tokens.length - 1), hidden.last],
    [mean, hidden.mean],
  ] as const) {
    const largest = Math.max(...expected.map(Math.abs));
    const worst = Math.max(...expected.map((value, index) => Math.abs(value - actual[index]!)));
    expect(worst / largest).toBeLessThan(TOLERANCE);
  }
}

async function withModel(
  path: string,
  changes: Partial<ModelLoadOptions>,
  use: (model: LoadedModel) => void,
) {
  const model = await loadModel({ ...OPTIONS, path, ...changes });
  try {
    use(model);
  } finally {
    model.close();
  }
}

for (const name of GOLDEN_NAMES) {
  describe(name, () => {
    const golden = readGolden(name);
    const whole = (model: LoadedModel) =>
      runStep(model, [{ sequence: 0, tokens: golden.tokens, start: 0 }])[0]!;

    const compare = (model: LoadedModel) => {
      expectClose(whole(model), golden);
      expectHidden(model, golden);
    };

    test("safetensors: logits and hidden states as transformers computes them", async () => {
      const path = join(folder, name);
      writeHuggingFace(golden, path);
      await withModel(path, {}, compare);
    });

    test("GGUF: the same", async () => {
      const path = join(folder, `${name}.gguf`);
      writeGgufTwin(golden, path);
      await withModel(path, {}, compare);
    });

    test("chunks, company, threads and mapping do not change a bit", async () => {
      const path = join(folder, `${name}-bits`);
      writeHuggingFace(golden, path);
      const { tokens } = golden;
      let expected: Float32Array[] = [];
      await withModel(path, { threads: 1 }, (model) => {
        expected = whole(model);
      });
      await withModel(path, { mmap: false }, (model) => {
        expect(whole(model)).toEqual(expected);
        // In uneven chunks, the last of them single tokens as in decoding.
        const rows: Float32Array[] = [];
        for (let start = 0; start < tokens.length; ) {
          const length = start < 10 ? 3 : start < 30 ? 9 : 1;
          const chunk = tokens.slice(start, start + length);
          rows.push(...runStep(model, [{ sequence: 1, tokens: chunk, start }])[0]!);
          start += length;
        }
        expect(rows).toEqual(expected);
        // Prefill of one and decoding of another in the same steps, beside a third that only shares the batch.
        const [first, second] = [tokens.slice(0, 13), tokens.slice(0, 1)];
        const [a1, b1] = runStep(model, [
          { sequence: 2, tokens: first, start: 0 },
          { sequence: 0, tokens: second, start: 0 },
        ]);
        const [b2, c, a2] = runStep(model, [
          { sequence: 0, tokens: tokens.slice(1, 2), start: 1 },
          { sequence: 1, tokens: [5, 4, 3], start: 0 },
          { sequence: 2, tokens: tokens.slice(13), start: 13 },
        ]);
        expect([...a1!, ...a2!]).toEqual(expected);
        expect([...b1!, ...b2!]).toEqual(expected.slice(0, 2));
        expect(c).toHaveLength(3);
      });
    });
  });
}

/** Each line: a golden, what is changed in its configuration, and that the comparison must notice it. */
const MISREADINGS: [string, string, Record<string, unknown>][] = [
  ["mistral", "no window", { sliding_window: null }],
  ["mistral", "a window one too long", { sliding_window: 9 }],
  ["qwen2-window", "windows on every layer", { layer_types: new Array(3).fill("sliding_attention") }],
  ["llama3", "no scaling", { rope_parameters: { rope_theta: 10_000 } }],
  ["llama-yarn", "no attention factor", { rope_parameters: yarnWith({ attention_factor: 1 }) }],
  ["smollm2", "another base", { rope_parameters: { rope_theta: 99_000 } }],
  ["qwen3", "another epsilon", { rms_norm_eps: 1e-4 }],
  ["gemma3", "no cap", { final_logit_softcapping: null }],
  ["gemma3", "another scale of queries", { query_pre_attn_scalar: 33 }],
  [
    "gemma3",
    "one rotation for all layers",
    { rope_parameters: { rope_theta: 10_000 }, rope_local_base_freq: 10_000 },
  ],
  ["gemma3", "exact GELU", { hidden_activation: "gelu" }],
];

function yarnWith(change: Record<string, unknown>): Record<string, unknown> {
  return { ...(readGolden("llama-yarn").config.rope_parameters as Record<string, unknown>), ...change };
}

describe("the comparison notices", () => {
  for (const [name, what, change] of MISREADINGS) {
    test(`${name}: ${what}`, async () => {
      const golden = readGolden(name);
      const path = join(folder, `${name}-misread`);
      writeHuggingFace(golden, path, { ...golden.config, ...change });
      await withModel(path, {}, (model) => {
        const [rows] = runStep(model, [{ sequence: 0, tokens: golden.tokens, start: 0 }]);
        expect(() => expectClose(rows!, golden)).toThrow("relative error");
      });
    });
  }
});
