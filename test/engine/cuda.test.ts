/**
 * Whole models through the engine on a CUDA device, a GPU's or the emulated one: the processor's greedy tokens, the
 * same in company as alone, with captured steps and without.
 */

import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { EngineCore } from "../../src/engine/engine-core.ts";
import { loadModel, type ModelLoadOptions } from "../../src/models/load-model.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import { openCudaLevels } from "../kernels/cuda-devices.ts";
import { GOLDEN_NAMES, type Golden, readGolden, writeHuggingFace } from "../reference/tiny-checkpoint.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { finish, GREEDY, Outcomes, request } from "./requests.ts";

const folder = temporaryFolder("cuda-engine");
const OPTIONS: Omit<ModelLoadOptions, "path"> = {
  threads: 1,
  sequencesMax: 6,
  tokensMax: 48,
  contextLengthMax: 96,
  kvCacheType: "f16",
  kvMemoryBytes: 8 << 20,
  blockSize: 8,
  mmap: true,
};
const CUDA: Partial<ModelLoadOptions> = { device: { kind: "cuda", index: 0 } };
/** Each goes on for three tokens more than the one before, so that every size of batch comes up. */
const LENGTHS = [5, 8, 17, 3, 33];

interface Wanted {
  readonly promptTokens: Int32Array;
  readonly maxTokens: number;
}

/** Prompts of several lengths from a golden's tokens: within a block, at its end, long. */
function wantedOf({ tokens }: Golden): Wanted[] {
  return LENGTHS.map((length, index) => ({
    promptTokens: Int32Array.from({ length }, (_, at) => tokens[(at + 7 * index) % tokens.length]!),
    maxTokens: 4 + 3 * index,
  }));
}

/** What each prompt goes on with, all at once or one after the other. */
function generate(model: LoadedModel, wanted: readonly Wanted[], company: "alone" | "together"): string[] {
  const core = new EngineCore(model, { prefixCache: false });
  const outcomes = new Outcomes();
  for (const [id, one] of wanted.entries()) {
    core.submit(request(id, { ...one, sampling: GREEDY }));
    if (company === "alone") finish(core, outcomes);
  }
  finish(core, outcomes);
  core.checkLedger();
  return wanted.map((_, id) => {
    const { tokens, end } = outcomes.of(id);
    if (end?.type !== "finish") throw new Error(`request ${id} ended with ${JSON.stringify(end)}`);
    return tokens.join();
  });
}

async function using<T>(
  options: Partial<ModelLoadOptions> & { readonly path: string },
  use: (model: LoadedModel) => T,
): Promise<T> {
  const model = await loadModel({ ...OPTIONS, ...options });
  try {
    return use(model);
  } finally {
    model.close();
  }
}

const NO_GRAPHS = { captured: 0, refused: 0, bytes: 0, replays: 0 };

if (openCudaLevels().length > 0) {
  test.each(GOLDEN_NAMES)("%s: what the processor says, in company", async (name) => {
    const golden = readGolden(name);
    const path = join(folder, name);
    writeHuggingFace(golden, path);
    const wanted = wantedOf(golden);
    const expected = await using({ path }, (model) => generate(model, wanted, "alone"));
    expect(new Set(expected).size).toBe(wanted.length);
    await using({ path, ...CUDA }, (model) => {
      expect(model.info).toMatchObject({ threads: 0, device: expect.stringContaining("(cuda:0)") });
      expect(generate(model, wanted, "together")).toEqual(expected);
      expect(model.graphTotals).toMatchObject({ captured: 4, refused: 0 });
    });
  });

  describe("smollm2", () => {
    const golden = readGolden("smollm2");
    const path = join(folder, "smollm2");
    const wanted = wantedOf(golden);

    test("says in company what it says alone, with captured steps what it says with launched ones", async () => {
      writeHuggingFace(golden, path);
      const captured = await using({ path, ...CUDA }, (model) => {
        const alone = generate(model, wanted, "alone");
        // Every step of decoding but the first was a graph.
        const steps = wanted.reduce((sum, { maxTokens }) => sum + maxTokens - 1, 0);
        expect(model.graphTotals).toMatchObject({ captured: 1, replays: steps - 1 });
        expect(generate(model, wanted, "together")).toEqual(alone);
        return alone;
      });
      await using({ path, ...CUDA, graphBudgetBytes: 0 }, (model) => {
        expect(generate(model, wanted, "together")).toEqual(captured);
        expect(model.graphTotals).toEqual(NO_GRAPHS);
      });
    });

    test("gives its hidden states and logits to the host", async () => {
      writeHuggingFace(golden, path);
      const embed = (model: LoadedModel): Float32Array => {
        const core = new EngineCore(model, { prefixCache: false });
        const outcomes = new Outcomes();
        core.submit(request(0, { ...wanted[2]!, maxTokens: 0, embedding: "mean" }));
        finish(core, outcomes);
        return Float32Array.from(outcomes.of(0).embedding!);
      };
      const expected = await using({ path }, embed);
      const actual = await using({ path, ...CUDA }, embed);
      const scale = Math.max(...expected.map(Math.abs));
      const worst = Math.max(...expected.map((value, index) => Math.abs(value - actual[index]!)));
      expect(worst / scale).toBeLessThan(2e-3);
    });
  });
}
