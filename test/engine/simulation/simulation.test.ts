/** The bounded part of the simulation; `bun test/load/simulate.ts` runs it at full length and prints every figure. */

import { expect, test } from "bun:test";
import { measureGap, measureStep } from "./measure.ts";
import { simulate } from "./simulation.ts";

test("24,000 requests in every weather: all end once and as they do alone, no block is lost, nobody starves", async () => {
  const { epochs, requests } = await simulate(24_000, 7);
  expect(requests).toBe(24_000);
  // A simulation in which nothing happens proves nothing.
  const sum = (figure: (epoch: (typeof epochs)[number]) => number): number =>
    epochs.reduce((total, epoch) => total + figure(epoch), 0);
  for (const outcome of [
    "stop",
    "length",
    "abort",
    "left",
    "overloaded",
    "engine_failed",
    "context_length_exceeded",
  ]) {
    expect(`${outcome} ${sum(({ outcomes }) => outcomes[outcome] ?? 0) > 100}`).toBe(`${outcome} true`);
  }
  expect(sum(({ statistics }) => statistics.preemptions)).toBeGreaterThan(200);
  expect(sum(({ statistics }) => statistics.prefixCacheHits)).toBeGreaterThan(1000);
  expect(sum(({ statistics }) => statistics.prefixCacheEvictions)).toBeGreaterThan(1000);
  expect(sum(({ failures }) => failures)).toBeGreaterThan(10);
  expect(sum(({ waiting }) => waiting.checkedRisen)).toBeGreaterThan(200);
  expect(sum(({ waiting }) => waiting.checkedTop)).toBeGreaterThan(1000);
  expect(sum(({ comparedTokens }) => comparedTokens)).toBeGreaterThan(200_000);
}, 60_000);

test("beside a prompt of 30,000 tokens every stream has a token in every step, and the prompt moves on", () => {
  const { gapSteps, gapMs, fullStepMs, promptSteps, promptTokensPerStepMin } = measureGap();
  expect(gapSteps).toBe(1);
  expect(gapMs).toBeLessThanOrEqual(fullStepMs);
  expect(promptTokensPerStepMin).toBeGreaterThan(100);
  expect(promptSteps).toBeLessThan(130);
});

test("a sequence costs a step the same among sixteen and among a thousand, and those that wait cost nothing", () => {
  const few = Math.min(...[1, 2, 3].map(() => measureStep(64, 0, 200).sequenceUs));
  const many = Math.min(...[1, 2, 3].map(() => measureStep(1024, 0, 50).sequenceUs));
  // Generous, for machines that have other things to do; a cost that grew with the batch would be sixteenfold.
  expect(many / few).toBeLessThan(5);
  const idle = Math.min(...[1, 2, 3].map(() => measureStep(64, 1024, 200).sequenceUs));
  expect(idle / few).toBeLessThan(5);
}, 60_000);
