/**
 * Whatever happens around a request - other requests, aborts, chunks, shared prefixes, preemption in a tiny
 * pool - it gets the tokens, scores, embedding and end that it gets alone, it ends once, and no block is lost.
 */

import { expect, test } from "bun:test";
import fc from "fast-check";
import { EngineCore } from "../../src/engine/engine-core.ts";
import type { GenerateRequest } from "../../src/engine/messages.ts";
import type { StepLimits } from "../../src/models/step.ts";
import { FakeRunner } from "./fake-runner.ts";
import { GREEDY, Outcomes, promptOf, request, runAlone } from "./requests.ts";

const BLOCK_SIZE = 4;

const arrival = fc.record({
  atStep: fc.integer({ min: 0, max: 20 }),
  /** Steps after arrival; most requests are not aborted. */
  abortAfter: fc.oneof({ weight: 5, arbitrary: fc.constant(null) }, { weight: 1, arbitrary: fc.nat(12) }),
  promptLength: fc.integer({ min: 1, max: 60 }),
  /** Requests with the same text share as much of a prefix as the shorter has. */
  text: fc.integer({ min: 0, max: 2 }),
  maxTokens: fc.integer({ min: 0, max: 24 }),
  stops: fc.boolean(),
  temperature: fc.constantFrom(0, 0, 0.8),
  repetitionPenalty: fc.constantFrom(1, 1, 1.5),
  frequencyPenalty: fc.constantFrom(0, 0, 0.5),
  dry: fc.constantFrom(false, false, true),
  priority: fc.constantFrom("interactive", "normal", "batch"),
  salted: fc.constantFrom(false, false, true),
  logprobs: fc.constantFrom(-1, -1, 0, 3),
  promptLogprobs: fc.constantFrom(-1, -1, -1, 0, 2),
  embedding: fc.constantFrom(undefined, undefined, undefined, undefined, "last", "mean"),
});

const machine = fc
  .record({
    sequencesMax: fc.integer({ min: 1, max: 6 }),
    moreTokens: fc.integer({ min: 0, max: 30 }),
    moreRows: fc.integer({ min: 0, max: 6 }),
    blocks: fc.integer({ min: 12, max: 40 }),
    adjustmentsMax: fc.constantFrom(130, 200, 1000),
  })
  .map(({ sequencesMax, moreTokens, moreRows, blocks, adjustmentsMax }) => ({
    sequencesMax,
    tokensMax: sequencesMax + moreTokens,
    rowsMax: sequencesMax + moreRows,
    blockSize: BLOCK_SIZE,
    blockCount: blocks + 1,
    blocksPerSequenceMax: 30,
    adjustmentsMax,
  }));

type Arrival = typeof arrival extends fc.Arbitrary<infer T> ? T : never;

function toRequest(id: number, from: Arrival): GenerateRequest {
  const { temperature, repetitionPenalty, frequencyPenalty, logprobs, priority } = from;
  return request(id, {
    promptTokens: promptOf(from.promptLength, from.text),
    maxTokens: from.embedding === undefined ? from.maxTokens : 0,
    stopTokens: from.stops ? [5, 6, 7] : [],
    promptLogprobs: from.embedding === undefined ? from.promptLogprobs : -1,
    ...(from.embedding === undefined ? {} : { embedding: from.embedding }),
    priority,
    ...(from.salted ? { cacheSalt: "salt" } : {}),
    sampling: {
      ...GREEDY,
      temperature,
      repetitionPenalty,
      frequencyPenalty,
      logprobs,
      seed: BigInt(id) << 30n,
      ...(from.dry ? { dry: { multiplier: 1, base: 1.5, allowedLength: 1, breakers: [9] } } : {}),
    },
  });
}

interface Run {
  readonly outcomes: Outcomes;
  readonly requests: readonly GenerateRequest[];
  readonly aborted: ReadonlySet<number>;
  readonly core: EngineCore;
}

function simulate(limits: Partial<StepLimits>, arrivals: readonly Arrival[], prefixCache: boolean): Run {
  let nowMs = 0;
  const core = new EngineCore(new FakeRunner({ limits }), { prefixCache, clock: () => nowMs });
  const outcomes = new Outcomes();
  const requests = arrivals.map((from, index) => toRequest(index + 1, from));
  const aborted = new Set<number>();
  for (let step = 0; step <= 50 || core.hasWork; step++) {
    if (step > 20_000) throw new Error("the engine does not come to an end");
    arrivals.forEach((from, index) => {
      if (from.atStep === step) core.submit(requests[index]!);
      if (from.abortAfter === null || from.atStep + from.abortAfter !== step) return;
      if (outcomes.of(index + 1).end === null) aborted.add(index + 1);
      core.abort(index + 1);
    });
    outcomes.add(core.step());
    // Slow steps, so that some who wait rise.
    nowMs += 7_000;
    core.checkLedger();
    if (core.failure !== null) throw core.failure;
  }
  return { outcomes, requests, aborted, core };
}

/** How often each interesting thing happened over all runs: a property that never meets them proves nothing. */
const met = { preemptions: 0, hits: 0, aborts: 0, stops: 0, lengths: 0, embeddings: 0, refusals: 0 };

function judge({ outcomes, requests, aborted, core }: Run, limits: Partial<StepLimits>): void {
  const statistics = core.statistics();
  met.preemptions += statistics.preemptions;
  met.hits += statistics.prefixCacheHits;
  expect(statistics).toMatchObject({ running: 0, waiting: 0, blocksUsed: 0 });
  for (const lone of requests) {
    const outcome = outcomes.of(lone.id);
    const expected = runAlone(lone, limits);
    const { end } = outcome;
    if (end === null || expected.end === null) throw new Error(`request ${lone.id} never ended`);
    if (end.type === "finish" && end.reason === "abort") {
      met.aborts += 1;
      expect(aborted.has(lone.id)).toBe(true);
      expect(outcome.tokens).toEqual(expected.tokens.slice(0, outcome.tokens.length));
      expect(outcome.embedding).toBeNull();
      continue;
    }
    expect(outcome.tokens).toEqual(expected.tokens);
    expect(outcome.logprobs).toEqual(expected.logprobs);
    expect(outcome.prompt).toEqual(expected.prompt);
    expect(outcome.embedding).toEqual(expected.embedding);
    if (outcome.embedding !== null) met.embeddings += 1;
    if (end.type === "error") {
      met.refusals += 1;
      expect(end.code).toBe(expected.end.type === "error" ? expected.end.code : "backend");
      continue;
    }
    met[end.reason === "stop" ? "stops" : "lengths"] += 1;
    const { cachedTokens } = end.usage;
    expect(cachedTokens).toBeLessThan(lone.promptTokens.length);
    const alone = { promptTokens: lone.promptTokens.length, completionTokens: expected.tokens.length };
    expect<unknown>(end).toEqual({ ...expected.end, usage: { ...alone, cachedTokens } });
  }
}

test("every request gets what it gets alone, once, and nothing leaks", () => {
  fc.assert(
    fc.property(
      machine,
      fc.array(arrival, { minLength: 1, maxLength: 14 }),
      fc.boolean(),
      (limits, arrivals, prefixCache) => {
        const poolTokens = Math.min(limits.blockCount - 1, limits.blocksPerSequenceMax) * BLOCK_SIZE;
        const alone = { contextLength: poolTokens, adjustmentsMax: limits.adjustmentsMax };
        judge(simulate(limits, arrivals, prefixCache), alone);
      },
    ),
    { seed: 20_240_501, numRuns: 400 },
  );

  const rare = Object.entries(met).filter(([, count]) => count <= 20);
  expect(rare).toEqual([]);
}, 60_000);
