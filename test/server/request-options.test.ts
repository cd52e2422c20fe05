/** What a request may say about choosing, waiting, caching and cutting, and what of it reaches the engine. */

import { describe, expect, test } from "bun:test";
import { BOS } from "./byte-tokenizer.ts";
import {
  CHAT,
  COMPLETIONS,
  chat,
  complete,
  errorOf,
  harness,
  minimalBody,
  post,
  readEvents,
  says,
} from "./harness.ts";

describe("best_of", () => {
  /** The scripted engine finds early letters likelier: seed 3 says the best text, then 1, then 2, then 0. */
  const texts = ["zz", "bbbb", "yb", "a"];
  const made = () => harness({ script: ({ sampling }) => says(texts[Number(sampling.seed)]!) });

  test("generates that many and gives the n with the highest log-probability per token, best first", async () => {
    const { app, engine } = made();
    const { choices, usage } = await complete(app, { seed: 0, n: 2, best_of: 4 });
    expect(choices.map(({ index, text, logprobs }) => ({ index, text, logprobs }))).toEqual([
      { index: 0, text: "a", logprobs: null },
      { index: 1, text: "bbbb", logprobs: null },
    ]);
    expect(engine.requests).toHaveLength(4);
    expect(engine.requests.map(({ sampling }) => sampling.logprobs)).toEqual([0, 0, 0, 0]);
    expect(usage).toMatchObject({ prompt_tokens: 2, completion_tokens: 2 + 4 + 2 + 1 });
  });

  test("chooses among the answers of each prompt by itself, and keeps their log-probabilities", async () => {
    const { app } = made();
    const body = { prompt: ["One", "Two"], seed: 0, best_of: 3, logprobs: 1, echo: true };
    const { choices } = await complete(app, body);
    expect(choices.map(({ text }) => text)).toEqual(["Onebbbb", "Twobbbb"]);
    expect(choices[0]?.logprobs?.tokens.join("")).toBe("Onebbbb");
  });

  test("echoes a prompt that nobody wants scored", async () => {
    const { app } = made();
    expect(
      (await complete(app, { prompt: "Hi ", seed: 0, best_of: 2, echo: true })).choices[0],
    ).toMatchObject({
      text: "Hi bbbb",
      logprobs: null,
    });
  });

  test("of n changes nothing; an answer without tokens is the worst", async () => {
    const { app, engine } = made();
    expect((await complete(app, { seed: 0, n: 2, best_of: 2 })).choices.map(({ text }) => text)).toEqual([
      "zz",
      "bbbb",
    ]);
    expect(engine.requests[0]?.sampling.logprobs).toBe(-1);
    const silent = harness({ script: ({ sampling }) => says(sampling.seed === 0n ? "" : "zzz") });
    expect((await complete(silent.app, { seed: 0, best_of: 2 })).choices[0]?.text).toBe("zzz");
  });

  test("above n cannot be streamed", async () => {
    const { app } = made();
    expect(
      await errorOf(await post(app, COMPLETIONS, { prompt: "Hi", best_of: 2, stream: true })),
    ).toMatchObject({ status: 400, error: { param: "best_of" } });
  });
});

describe("truncate_sequence", () => {
  const info = { contextLength: 10 };
  const prompt = "0123456789abc";

  test("keeps the end of the prompt, with room for max_tokens, and says what went", async () => {
    const { app, engine } = harness({ info });
    const response = await post(app, COMPLETIONS, { prompt, max_tokens: 4, truncate_sequence: true });
    expect(response.status).toBe(200);
    expect(response.headers.get("x-mistral-warning")).toBe(
      "truncate_sequence dropped the oldest 7 tokens of the prompt",
    );
    expect([...engine.requests[0]!.promptTokens]).toEqual([...Buffer.from("789abc")]);
    expect(engine.requests[0]?.maxTokens).toBe(4);
  });

  test("leaves room for one token when no limit is given, and keeps the BOS in front", async () => {
    const { app, engine } = harness({ info, bos: true });
    const response = await post(app, COMPLETIONS, { prompt, truncate_sequence: true, stream: true });
    expect(response.headers.get("x-mistral-warning")).toContain("oldest 5 tokens");
    await readEvents(response);
    expect([...engine.requests[0]!.promptTokens]).toEqual([BOS, ...Buffer.from("56789abc")]);
  });

  test("works on a chat, and leaves a prompt that fits alone", async () => {
    const { app, engine } = harness({ info });
    const cut = await post(app, CHAT, { ...minimalBody(CHAT), truncate_sequence: true });
    expect(cut.headers.get("x-mistral-warning")).toContain("dropped the oldest");
    expect(engine.requests[0]?.promptTokens).toHaveLength(9);
    const whole = await post(app, COMPLETIONS, { prompt: "abc", truncate_sequence: true });
    expect(whole.headers.get("x-mistral-warning")).toBeNull();
    expect(engine.requests[1]?.promptTokens).toHaveLength(3);
  });

  test("not asked for: the prompt is refused", async () => {
    const { app } = harness({ info });
    for (const more of [{}, { truncate_sequence: false }, { truncate_sequence: null }]) {
      expect(await errorOf(await post(app, COMPLETIONS, { prompt, ...more }))).toMatchObject({
        status: 400,
        error: { code: "context_length_exceeded", message: expect.stringContaining("13 tokens") },
      });
    }
  });
});

describe("the DRY penalty", () => {
  async function dryOf(fields: Record<string, unknown>) {
    const { app, engine } = harness();
    await chat(app, fields);
    return engine.requests[0]?.sampling.dry;
  }

  test("is off unless it has a multiplier", async () => {
    expect(await dryOf({})).toBeUndefined();
    expect(await dryOf({ dry_multiplier: 0, dry_base: 3 })).toBeUndefined();
  });

  test("has the reference's defaults", async () => {
    expect(await dryOf({ dry_multiplier: 0.8 })).toEqual({
      multiplier: 0.8,
      base: 1.75,
      allowedLength: 2,
      breakers: [...Buffer.from('\n:"*')],
    });
  });

  test("takes a breaker of several tokens as the last of them", async () => {
    const fields = { dry_base: 2, dry_allowed_length: 0, dry_sequence_breakers: ["xyz", "z", "!"] };
    expect(await dryOf({ dry_multiplier: 1, ...fields })).toEqual({
      multiplier: 1,
      base: 2,
      allowedLength: 1,
      breakers: [...Buffer.from("z!")],
    });
  });
});

test.each([
  ["priority", "interactive"],
  ["flex", "batch"],
  ["auto", "normal"],
  ["default", "normal"],
  [null, "normal"],
] as const)("service_tier %p waits as %s", async (service_tier, priority) => {
  const { app, engine } = harness();
  await chat(app, { service_tier });
  expect(engine.requests[0]?.priority).toBe(priority);
});

test("cache_salt reaches the engine, on both routes", async () => {
  const { app, engine } = harness();
  await chat(app, { cache_salt: "tenant 1" });
  await complete(app, { cache_salt: "tenant 2" });
  await complete(app);
  expect(engine.requests.map(({ cacheSalt }) => cacheSalt)).toEqual(["tenant 1", "tenant 2", undefined]);
});

test("tokens that the model's authors suppress are biased away, and the request's own biases stay", async () => {
  const { app, engine } = harness({ generationDefaults: { suppressTokens: [7, 8, 100_000] } });
  await complete(app, { logit_bias: { "7": 100 } });
  expect(engine.requests[0]?.sampling.logitBias).toEqual([
    { token: 7, bias: 100 },
    { token: 7, bias: -1e9 },
    { token: 8, bias: -1e9 },
  ]);
});
