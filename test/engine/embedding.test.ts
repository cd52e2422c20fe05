/** Embeddings in the engine: which hidden states they are made of, whatever else runs and however prompts are cut. */

import { beforeAll, describe, expect, test } from "bun:test";
import { EngineCore } from "../../src/engine/engine-core.ts";
import { InProcessEngine } from "../../src/engine/in-process-engine.ts";
import type { GenerateRequest } from "../../src/engine/messages.ts";
import type { Pooling } from "../../src/engine/pooling.ts";
import { engineInfo } from "../../src/engine/runner-module.ts";
import { loadModel, type ModelLoadOptions } from "../../src/models/load-model.ts";
import type { StepLimits } from "../../src/models/step.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { FAKE_WIDTH, FakeRunner, fakeHidden } from "./fake-runner.ts";
import { collect, finish, Outcomes, promptOf, request, runAlone, tokensOf } from "./requests.ts";

function embedding(id: number, promptTokens: Int32Array, pooling: Pooling): GenerateRequest {
  return request(id, { promptTokens, maxTokens: 0, embedding: pooling });
}

function engine(limits: Partial<StepLimits> = {}, prefixCache = true) {
  const runner = new FakeRunner({ limits });
  return { runner, core: new EngineCore(runner, { prefixCache }), outcomes: new Outcomes() };
}

/** The mean of the hidden states after each of these positions. */
function expected(prompt: Int32Array, pooling: Pooling): number[] {
  const rows = Array.from(prompt, (_, position) => fakeHidden(prompt.subarray(0, position + 1)));
  const pooled = pooling === "last" ? rows.slice(-1) : rows;
  return Array.from({ length: FAKE_WIDTH }, (_, index) =>
    Math.fround(pooled.reduce((sum, row) => sum + row[index]!, 0) / pooled.length),
  );
}

for (const pooling of ["last", "mean"] as const) {
  describe(pooling, () => {
    test.each([1, 2, 7, 8, 9, 33, 100])("%i tokens, in steps of any size", (length) => {
      const prompt = promptOf(length, 3);
      for (const limits of [{}, { tokensMax: 8 }, { rowsMax: 9 }, { tokensMax: 1024, rowsMax: 1024 }]) {
        const { core, outcomes } = engine(limits);
        core.submit(embedding(1, prompt, pooling));
        finish(core, outcomes);
        expect(outcomes.of(1)).toMatchObject({
          tokens: [],
          embedding: expected(prompt, pooling),
          end: {
            type: "finish",
            reason: "stop",
            usage: { promptTokens: length, completionTokens: 0, cachedTokens: 0 },
          },
        });
      }
    });

    test("a cached prefix changes nothing", () => {
      const { core, outcomes } = engine();
      const prompt = promptOf(50, 4);
      core.submit(request(1, { promptTokens: prompt, maxTokens: 2 }));
      finish(core, outcomes);
      core.submit(embedding(2, prompt, pooling));
      finish(core, outcomes);
      const { embedding: vector, end } = outcomes.of(2);
      expect(vector).toEqual(expected(prompt, pooling));
      // The mean needs every token's row, the last only its own.
      const cached = end?.type === "finish" ? end.usage.cachedTokens : -1;
      expect(cached).toBe(pooling === "last" ? 48 : 0);
    });

    test("beside generation, under preemption, changes neither", () => {
      // Room for 19 blocks of 4: six that grow to ten each, and prompts of up to 60 tokens between them.
      const { core, outcomes } = engine({ blockCount: 20, rowsMax: 8, tokensMax: 16 });
      const generated = Array.from({ length: 6 }, (_, index) =>
        request(index, { promptTokens: promptOf(9, index), maxTokens: 30 }),
      );
      const prompts = [60, 5, 44, 17].map((length, index) => promptOf(length, 20 + index));
      generated.forEach((each, index) => {
        core.submit(each);
        const prompt = prompts[index];
        if (prompt !== undefined) core.submit(embedding(100 + index, prompt, pooling));
      });
      finish(core, outcomes);
      expect(core.statistics().preemptions).toBeGreaterThan(0);
      for (const each of generated) expect(outcomes.of(each.id).tokens).toEqual(runAlone(each).tokens);
      prompts.forEach((prompt, index) => {
        expect(outcomes.of(100 + index).embedding).toEqual(expected(prompt, pooling));
      });
      core.checkLedger();
    });
  });
}

test("what was summed before a preemption is kept, and summed once", () => {
  // A prompt of 40 in steps of 4 rows takes ten steps; the generating one before it soon needs its blocks.
  const { core, outcomes } = engine({ blockCount: 15, rowsMax: 9, sequencesMax: 4, tokensMax: 8 });
  const prompt = promptOf(36, 8);
  core.submit(request(1, { promptTokens: promptOf(13, 1), maxTokens: 40 }));
  core.submit(embedding(2, prompt, "mean"));
  finish(core, outcomes);
  expect(core.statistics().preemptions).toBeGreaterThan(0);
  expect(outcomes.of(2).embedding).toEqual(expected(prompt, "mean"));
});

test("an abort in the middle ends it once, without a vector, and frees its blocks", () => {
  const { core, outcomes } = engine({ tokensMax: 8 });
  core.submit(embedding(1, promptOf(100, 5), "mean"));
  for (let step = 0; step < 3; step++) outcomes.add(core.step());
  expect(core.statistics().blocksUsed).toBeGreaterThan(0);
  core.abort(1);
  finish(core, outcomes);
  expect(outcomes.of(1)).toMatchObject({ embedding: null, end: { type: "finish", reason: "abort" } });
  expect(core.statistics()).toMatchObject({ blocksUsed: 0, endedAbort: 1, endedStop: 0 });
});

test.each([
  ["generates", { maxTokens: 1 }, "invalid_request"],
  ["scores", { promptLogprobs: 0 }, "invalid_request"],
  ["is empty", { promptTokens: new Int32Array() }, "invalid_request"],
  ["is too long", { promptTokens: promptOf(1025, 1) }, "context_length_exceeded"],
] as const)("one that %s is refused", (_, changes, code) => {
  const { core, outcomes } = engine();
  core.submit({ ...embedding(1, promptOf(9, 1), "last"), ...changes });
  finish(core, outcomes);
  expect(outcomes.of(1)).toMatchObject({ embedding: null, end: { type: "error", code } });
});

describe("of a real model", () => {
  const folder = temporaryFolder("embedding");
  beforeAll(() => writeTinyModel(folder));

  async function withEngine<T>(
    changes: Partial<ModelLoadOptions>,
    use: (engine: InProcessEngine) => Promise<T>,
  ): Promise<T> {
    const model = await loadModel({
      path: folder,
      threads: 2,
      sequencesMax: 8,
      tokensMax: 64,
      kvCacheType: "f32",
      kvMemoryBytes: 32 << 20,
      blockSize: 8,
      mmap: true,
      ...changes,
    });
    const real = new InProcessEngine(model, engineInfo(folder, model), { prefixCache: true });
    try {
      return await use(real);
    } finally {
      await real.close();
    }
  }

  async function embed(real: InProcessEngine, promptTokens: Int32Array, pooling: Pooling) {
    const events = await collect(real.generate(embedding(0, promptTokens, pooling)));
    expect(events.map(({ type }) => type)).toEqual(["embedding", "finish"]);
    return events[0]?.type === "embedding" ? [...events[0].vector] : [];
  }

  test("a batch of mixed lengths is, bit for bit, what each gives alone in one step, or in many", async () => {
    const prompts = [1, 70, 3, 200, 64, 65, 8, 31].map((length, index) => promptOf(length, index));
    const jobs = prompts.flatMap((prompt) => [[prompt, "last"] as const, [prompt, "mean"] as const]);
    const alone = await withEngine({ threads: 1, tokensMax: 256 }, async (real) => {
      const vectors: number[][] = [];
      for (const [prompt, pooling] of jobs) vectors.push(await embed(real, prompt, pooling));
      return vectors;
    });
    expect(new Set(alone.map((vector) => vector.length))).toEqual(new Set([72]));
    expect(new Set(alone.map(String)).size).toBe(jobs.length - 1); // one token is its own mean
    const together = await withEngine({ tokensMax: 24 }, async (real) => {
      const company = collect(real.generate(request(0, { promptTokens: promptOf(20, 9), maxTokens: 40 })));
      const vectors = await Promise.all(jobs.map(([prompt, pooling]) => embed(real, prompt, pooling)));
      expect(tokensOf(await company)).toHaveLength(40);
      return vectors;
    });
    expect(together).toEqual(alone);
  });
});
