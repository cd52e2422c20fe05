/**
 * Every rule of sampling from the request to the token, through the engine and the real sample op, against the rule
 * written out in float64: alone, in a batch, preempted, whatever the rules' combination.
 */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import fc from "fast-check";
import { availableLevels } from "../../src/backend/library.ts";
import { EngineCore } from "../../src/engine/engine-core.ts";
import type { DryParameters, GenerateRequest, SamplingParameters } from "../../src/engine/messages.ts";
import { choose, logProbabilities, ranked } from "../kernels/reference/sample.ts";
import { KernelSampler, logitsAfter, VOCABULARY } from "./kernel-sampler.ts";
import { finish, GREEDY, Outcomes, request } from "./requests.ts";

interface Expected {
  readonly tokens: number[];
  readonly logprobs: { readonly token: number; readonly logprob: number; readonly top: number[] }[];
}

/** What DRY takes from each token, by comparing every place of the text with its end. */
function dryPenalties(text: readonly number[], dry: DryParameters): Map<number, number> {
  const longest = new Map<number, number>();
  for (let place = 0; place < text.length - 1; place++) {
    let length = 0;
    while (length < 50 && length <= place && text[place - length] === text[text.length - 1 - length]) {
      if (dry.breakers.includes(text[place - length]!)) break;
      length++;
    }
    const next = text[place + 1]!;
    if (length >= dry.allowedLength && !dry.breakers.includes(next)) {
      longest.set(next, Math.max(length, longest.get(next) ?? 0));
    }
  }
  return new Map(
    [...longest].map(([token, length]) => [token, dry.multiplier * dry.base ** (length - dry.allowedLength)]),
  );
}

/** The rules in their order, in float64. */
function adjusted(
  logits: ArrayLike<number>,
  prompt: readonly number[],
  generated: readonly number[],
  rules: SamplingParameters,
) {
  const dry = rules.dry === undefined ? new Map() : dryPenalties([...prompt, ...generated], rules.dry);
  return Array.from(logits, (logit, token) => {
    const count = generated.filter((other) => other === token).length;
    let value = logit - (dry.get(token) ?? 0);
    value -= count * rules.frequencyPenalty + (count > 0 ? rules.presencePenalty : 0);
    if (count > 0 || prompt.includes(token)) {
      value = value > 0 ? value / rules.repetitionPenalty : value * rules.repetitionPenalty;
    }
    for (const entry of rules.logitBias) if (entry.token === token) value += entry.bias;
    return value;
  });
}

function reference({ promptTokens, maxTokens, stopTokens, sampling }: GenerateRequest): Expected {
  const prompt = [...promptTokens];
  const tokens: number[] = [];
  const logprobs: Expected["logprobs"] = [];
  while (tokens.length < maxTokens) {
    const own = logitsAfter([...prompt, ...tokens]);
    const { temperature, topK, topP, minP, seed } = sampling;
    const token = choose(adjusted(own, prompt, tokens, sampling), {
      temperature,
      topK,
      topP,
      minP,
      seedLow: Number(seed & 0xffff_ffffn),
      seedHigh: Number(seed >> 32n),
      position: prompt.length + tokens.length,
    });
    if (stopTokens.includes(token)) break;
    tokens.push(token);
    const logprob = logProbabilities(own)[token]!;
    logprobs.push({ token, logprob, top: ranked(own).slice(0, Math.max(0, sampling.logprobs)) });
  }
  return { tokens, logprobs };
}

let sampler: KernelSampler;
beforeAll(() => {
  sampler = new KernelSampler();
});
afterAll(() => sampler.close());

function generate(requests: readonly GenerateRequest[], runner: KernelSampler = sampler): Outcomes {
  const core = new EngineCore(runner, { prefixCache: true });
  const outcomes = new Outcomes();
  for (const each of requests) core.submit(each);
  finish(core, outcomes);
  core.checkLedger();
  return outcomes;
}

function expectReference(asked: GenerateRequest, outcomes: Outcomes): void {
  const expected = reference(asked);
  const { tokens, logprobs, end } = outcomes.of(asked.id);
  const rules = JSON.stringify(asked.sampling, (_, value) =>
    typeof value === "bigint" ? String(value) : value,
  );
  expect(`${rules} ${tokens}`).toBe(`${rules} ${expected.tokens}`);
  expect(end?.type).toBe("finish");
  if (asked.sampling.logprobs < 0) return;
  logprobs.forEach((entry, index) => {
    expect(entry?.logprob).toBeCloseTo(expected.logprobs[index]!.logprob, 4);
    expect(entry?.top.map(({ token }) => token)).toEqual(expected.logprobs[index]!.top);
    for (const top of entry?.top ?? []) expect(top.logprob).toBeLessThanOrEqual(0);
  });
}

const DRAWN: SamplingParameters = { ...GREEDY, temperature: 1, seed: 12_345n };

/** Each rule by itself; `differs`: from the same request without the rule. */
const RULES: readonly (readonly [string, Partial<SamplingParameters>])[] = [
  ["temperature, low", { temperature: 0.3 }],
  ["temperature, high", { temperature: 1.9 }],
  ["a seed", { seed: 0xfedc_ba98_7654_3210n }],
  ["top_k", { topK: 2 }],
  ["top_k of one", { topK: 1 }],
  ["top_p", { topP: 0.4 }],
  ["min_p without top_p", { minP: 0.3 }],
  ["min_p with top_p", { minP: 0.1, topP: 0.8 }],
  ["top_p of what top_k left", { topP: 0.7, topK: 3 }],
  ["a frequency penalty", { frequencyPenalty: 1.5 }],
  ["a negative frequency penalty", { frequencyPenalty: -1 }],
  ["a presence penalty", { presencePenalty: 2 }],
  ["a repetition penalty", { repetitionPenalty: 1.8 }],
  ["DRY", { dry: { multiplier: 2, base: 1.75, allowedLength: 1, breakers: [] } }],
  [
    "DRY with breakers",
    { dry: { multiplier: 2, base: 1.75, allowedLength: 1, breakers: [1, 5, 9, 13, 21] } },
  ],
  ["a logit bias", { logitBias: [{ token: 4, bias: 7.5 }] }],
  ["biases that forbid", { logitBias: Array.from({ length: 30 }, (_, token) => ({ token, bias: -1e9 })) }],
];

describe("by itself does what it says", () => {
  const prompt = { promptTokens: Int32Array.of(3, 1, 4, 1, 5, 9, 2, 6), maxTokens: 60 };
  const plain = {
    greedy: request(1, { ...prompt, sampling: GREEDY }),
    drawn: request(2, { ...prompt, sampling: DRAWN }),
  };

  test("without any rule: the most likely token, and the draw of the seed", () => {
    const outcomes = generate([plain.greedy, plain.drawn]);
    expectReference(plain.greedy, outcomes);
    expectReference(plain.drawn, outcomes);
  });

  test.each(RULES)("%s", (_, rule) => {
    const drawn = request(1, { ...prompt, sampling: { ...DRAWN, ...rule } });
    const outcomes = generate([drawn]);
    expectReference(drawn, outcomes);
    expect(outcomes.of(1).tokens).not.toEqual(reference(plain.drawn).tokens);
  });

  test("log-probabilities are natural, of the model's own distribution, whatever the rules", () => {
    const sampling = { ...DRAWN, temperature: 0.5, topK: 3, frequencyPenalty: 1, logprobs: 5 };
    const asked = request(1, { ...prompt, sampling });
    const outcomes = generate([asked]);
    expectReference(asked, outcomes);
    const total = outcomes.of(1).logprobs[0]!.top.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
    expect(total).toBeLessThan(1);
  });

  test("presence and frequency look at generated tokens alone, repetition at the prompt too", () => {
    const winner = ranked(logitsAfter([7, 7]))[0]!;
    // The prompt has already said what would come next.
    const next = (rule: Partial<SamplingParameters>): number | undefined => {
      const promptTokens = Int32Array.of(winner, 7, 7);
      const asked = request(1, { promptTokens, maxTokens: 1, sampling: { ...GREEDY, ...rule } });
      return generate([asked]).of(1).tokens[0];
    };
    expect(next({ frequencyPenalty: 9, presencePenalty: 9 })).toBe(winner);
    expect(next({ repetitionPenalty: 9 })).not.toBe(winner);
  });
});

const token = fc.integer({ min: 0, max: VOCABULARY - 1 });
const anyRules = fc.record({
  temperature: fc.constantFrom(0, 0.2, 0.8, 1, 1.7),
  topK: fc.constantFrom(0, 0, 1, 4, 20, 100),
  topP: fc.constantFrom(1, 1, 0.9, 0.5, 0.05),
  minP: fc.constantFrom(0, 0, 0.05, 0.4, 1),
  seed: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  frequencyPenalty: fc.constantFrom(0, 0, 0.5, -0.5),
  presencePenalty: fc.constantFrom(0, 0, 1.25, -1),
  // Exact in binary: logits that tie in float64 must not be parted by the rounding of float32.
  repetitionPenalty: fc.constantFrom(1, 1, 2, 0.5),
  logitBias: fc.array(fc.record({ token, bias: fc.constantFrom(-1e9, -3, 2, 100) }), { maxLength: 3 }),
  logprobs: fc.constantFrom(-1, 0, 5),
  dry: fc.constantFrom(undefined, { multiplier: 1.5, base: 1.5, allowedLength: 2, breakers: [0, 3] }),
});
const anyRequest = fc.record({
  prompt: fc.array(token, { minLength: 1, maxLength: 40 }),
  maxTokens: fc.integer({ min: 1, max: 40 }),
  stops: fc.constantFrom([], [7]),
  rules: anyRules,
});

describe.each(availableLevels())("on %s any combination of rules", (level) => {
  test("gives what the rules say, in a batch, in chunks and after preemption", () => {
    // A pool in which the requests of a run get in each other's way.
    const runner = new KernelSampler({ tokensMax: 16, blockCount: 22 }, level);
    let preemptions = 0;
    fc.assert(
      fc.property(fc.array(anyRequest, { minLength: 5, maxLength: 10 }), (asked) => {
        const requests = asked.map(({ prompt, maxTokens, stops, rules: { dry, ...rules } }, index) =>
          request(index + 1, {
            promptTokens: Int32Array.from(prompt),
            maxTokens,
            stopTokens: stops,
            sampling: { ...GREEDY, ...rules, ...(dry === undefined ? {} : { dry }) },
          }),
        );
        const core = new EngineCore(runner, { prefixCache: true });
        const outcomes = new Outcomes();
        for (const each of requests) core.submit(each);
        finish(core, outcomes);
        preemptions += core.statistics().preemptions;
        for (const each of requests) expectReference(each, outcomes);
      }),
      { seed: 5, numRuns: 60 },
    );
    runner.close();
    expect(preemptions).toBeGreaterThan(20);
  }, 60_000);
});
