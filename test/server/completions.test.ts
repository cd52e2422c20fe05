import { describe, expect, test } from "bun:test";
import type { CompletionChunk } from "../../src/server/openai/responses.ts";
import { BOS, EOS } from "./byte-tokenizer.ts";
import { COMPLETIONS, complete, errorOf, harness, minimalBody, post, readEvents, says } from "./harness.ts";
import { logprobOf } from "./scripted-engine.ts";

describe("a completion", () => {
  test("has OpenAI's shape, exactly", async () => {
    const { app } = harness({ script: () => says("abc") });
    const answer = await complete(app, { prompt: "Hi" });
    expect(answer.id).toMatch(/^cmpl-[0-9a-f]{32}$/);
    expect({ ...answer, id: "", created: 0, system_fingerprint: "" }).toEqual({
      id: "",
      created: 0,
      system_fingerprint: "",
      object: "text_completion",
      model: "test/scripted",
      choices: [{ index: 0, text: "abc", logprobs: null, finish_reason: "stop" }],
      usage: {
        prompt_tokens: 2,
        completion_tokens: 3,
        total_tokens: 5,
        prompt_tokens_details: { cached_tokens: 0 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    });
  });

  test("takes a text, texts, token ids and lists of token ids", async () => {
    const { app, engine } = harness({ script: (_, prompt) => says(`<${prompt}>`) });
    const texts = async (prompt: unknown) =>
      (await complete(app, { prompt })).choices.map(({ text }) => text);
    expect(await texts("one")).toEqual(["<one>"]);
    expect(await texts(["one", "two"])).toEqual(["<one>", "<two>"]);
    expect(await texts([72, 105])).toEqual(["<Hi>"]);
    expect(await texts([[72], [72, 105]])).toEqual(["<H>", "<Hi>"]);
    expect(engine.requests).toHaveLength(6);
  });

  test("counts each of several prompts once, whatever n is", async () => {
    const { app } = harness({ script: () => says("xy") });
    const { choices, usage } = await complete(app, { prompt: ["a", "bcd"], n: 2 });
    expect(choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
    expect(usage).toMatchObject({ prompt_tokens: 4, completion_tokens: 8, total_tokens: 12 });
  });

  test("puts the model's BOS before a text but not before token ids", async () => {
    const { app, engine } = harness({ bos: true });
    await complete(app, { prompt: "A" });
    await complete(app, { prompt: [65] });
    expect(engine.requests.map(({ promptTokens }) => [...promptTokens])).toEqual([[BOS, 65], [65]]);
  });

  test("goes on after the end token when told to ignore it", async () => {
    const { app, engine } = harness();
    await complete(app, { ignore_eos: true, max_tokens: 2 });
    await complete(app);
    expect(engine.requests.map(({ stopTokens }) => stopTokens)).toEqual([[], [EOS]]);
  });
});

describe("log-probabilities", () => {
  test("are four lists of one entry for each token", async () => {
    const { app } = harness({ script: () => says("a\u{1f600}b") });
    const { choices } = await complete(app, { prompt: "Hi", logprobs: 2 });
    const { tokens, token_logprobs, top_logprobs, text_offset } = choices[0]!.logprobs!;
    expect(tokens).toEqual(["a", "bytes:\\xf0", "bytes:\\x9f", "bytes:\\x98", "bytes:\\x80", "b"]);
    expect(text_offset).toEqual([0, 1, 1, 1, 1, 3]);
    expect(token_logprobs[0]).toBe(logprobOf(97, 2).logprob);
    expect(top_logprobs[0]).toEqual({
      a: logprobOf(97, 2).top[0]!.logprob,
      b: logprobOf(97, 2).top[1]!.logprob,
    });
  });

  test("of 0 still name the chosen token", async () => {
    const { app } = harness({ script: () => says("a") });
    const { choices } = await complete(app, { prompt: "Hi", logprobs: 0 });
    expect(choices[0]!.logprobs).toEqual({
      tokens: ["a"],
      token_logprobs: [logprobOf(97, 0).logprob],
      top_logprobs: [{ a: logprobOf(97, 0).logprob }],
      text_offset: [0],
    });
  });
});

describe("echo", () => {
  test("puts the prompt in front, as it was written", async () => {
    const { app } = harness({ script: () => says("!"), bos: true });
    const { choices } = await complete(app, { prompt: "Hi world", echo: true });
    expect(choices[0]).toMatchObject({ text: "Hi world!", logprobs: null });
  });

  test("scores the prompt alone with max_tokens 0", async () => {
    const { app, engine } = harness();
    const { choices, usage } = await complete(app, {
      prompt: [72, 105],
      echo: true,
      max_tokens: 0,
      logprobs: 1,
    });
    expect(choices[0]).toEqual({
      index: 0,
      text: "Hi",
      finish_reason: "length",
      logprobs: {
        tokens: ["H", "i"],
        token_logprobs: [null, logprobOf(105, 1).logprob],
        top_logprobs: [null, { i: logprobOf(105, 1).top[0]!.logprob }],
        text_offset: [0, 1],
      },
    });
    expect(usage.completion_tokens).toBe(0);
    expect(engine.requests[0]).toMatchObject({ maxTokens: 0, promptLogprobs: 1 });
  });

  test("goes on counting offsets from the prompt into the answer; an added BOS takes no room", async () => {
    const { app } = harness({ script: () => says("yz"), bos: true });
    const { choices } = await complete(app, { prompt: "Hi world", echo: true, logprobs: 0 });
    expect(choices[0]!.text).toBe("Hi worldyz");
    expect(choices[0]!.logprobs!.tokens).toEqual(["<s>", "H", "i", " world", "y", "z"]);
    expect(choices[0]!.logprobs!.text_offset).toEqual([0, 0, 1, 2, 8, 9]);
    expect(choices[0]!.logprobs!.token_logprobs[0]).toBeNull();
  });

  test("streams the prompt first, for each choice", async () => {
    const { app } = harness({ script: () => says("!") });
    const body = { prompt: ["a", "b"], echo: true, logprobs: 0, stream: true };
    const { chunks } = await readEvents<CompletionChunk>(await post(app, COMPLETIONS, body));
    const texts = ["", ""];
    for (const { choices } of chunks) for (const { index, text } of choices) texts[index] += text;
    expect(texts).toEqual(["a!", "b!"]);
  });
});

describe("stop strings", () => {
  const script = () => says("one STOP two");

  test("end the answer before them, whether one token or several, and free the engine", async () => {
    for (const stop of ["STOP", ["ne S", "STOP"], "STOP t", "S", ["never", " STOP"]]) {
      const { app, engine } = harness({ script: () => ({ ...script(), stepDelayMs: 1 }) });
      const { choices } = await complete(app, { stop });
      const expected = "one STOP two".split([stop].flat().find((text) => "one STOP two".includes(text))!)[0]!;
      expect(choices[0]).toMatchObject({ text: expected, finish_reason: "stop" });
      expect(engine.running).toBe(0);
      expect(engine.aborted).toBe(1);
    }
  });

  test("let a beginning of them through that goes on otherwise", async () => {
    const { app } = harness({ script: () => says("a ST OP STOk") });
    expect((await complete(app, { stop: "STOP" })).choices[0]).toMatchObject({ text: "a ST OP STOk" });
  });

  test("let a beginning of them through at the end of the answer", async () => {
    const { app } = harness({ script: () => says("value: S") });
    expect((await complete(app, { stop: "STOP" })).choices[0]!.text).toBe("value: S");
  });

  test("are in no chunk, and neither are their tokens' log-probabilities", async () => {
    const { app } = harness({ script: () => says("one ST" + "OP two", { stepDelayMs: 1 }) });
    const body = { ...minimalBody(COMPLETIONS), stop: ["STOP"], stream: true, logprobs: 0 };
    const { chunks } = await readEvents<CompletionChunk>(await post(app, COMPLETIONS, body));
    const choices = chunks.flatMap((chunk) => chunk.choices);
    expect(choices.map(({ text }) => text).join("")).toBe("one ");
    expect(choices.flatMap(({ logprobs }) => logprobs?.tokens ?? [])).toEqual(["o", "n", "e", " "]);
    expect(choices.at(-1)!.finish_reason).toBe("stop");
  });

  test("charge for the tokens up to them", async () => {
    const { app } = harness({ script: () => says("abSTOPcdefgh", { tokensPerStep: 6 }) });
    expect((await complete(app, { stop: "STOP" })).usage.completion_tokens).toBe(3);
  });

  test("end one of several choices and leave the others", async () => {
    const { app } = harness({
      script: ({ sampling }) => says(sampling.seed === 5n ? "aSTOPb" : "abc", { stepDelayMs: 1 }),
    });
    const { choices } = await complete(app, { stop: "STOP", n: 2, seed: 5 });
    expect(choices.map(({ text }) => text)).toEqual(["a", "abc"]);
  });
});

describe("sampling values", () => {
  const sampled = async (fields: Record<string, unknown>, defaults = {}) => {
    const { app, engine } = harness({ generationDefaults: defaults });
    await complete(app, { ...fields, seed: 1 });
    return engine.requests[0]!.sampling;
  };
  const PLAIN = {
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    seed: 1n,
    frequencyPenalty: 0,
    presencePenalty: 0,
    repetitionPenalty: 1,
    logitBias: [],
    logprobs: -1,
  };
  const MODEL = { temperature: 0.6, topP: 0.9, topK: 40, minP: 0.05, repetitionPenalty: 1.1 };

  test("are neutral when neither request nor model names them", async () => {
    expect(await sampled({})).toEqual(PLAIN);
    expect(await sampled({ temperature: null, top_p: null, top_k: null, stop: null, n: null })).toEqual(
      PLAIN,
    );
  });

  test("come from the model when the request has none, field by field", async () => {
    expect(await sampled({}, MODEL)).toEqual({ ...PLAIN, ...MODEL });
    expect(await sampled({ temperature: 0, top_k: -1 }, MODEL)).toEqual({
      ...PLAIN,
      ...MODEL,
      temperature: 0,
      topK: 0,
    });
  });

  test("of the request all reach the engine", async () => {
    const fields = {
      temperature: 0.5,
      top_p: 0.8,
      top_k: 7,
      min_p: 0.1,
      frequency_penalty: 0.3,
      presence_penalty: -0.2,
      repetition_penalty: 1.3,
      logit_bias: { "65": -100, "66": 5 },
    };
    expect(await sampled(fields, MODEL)).toEqual({
      ...PLAIN,
      temperature: 0.5,
      topP: 0.8,
      topK: 7,
      minP: 0.1,
      frequencyPenalty: 0.3,
      presencePenalty: -0.2,
      repetitionPenalty: 1.3,
      logitBias: [
        { token: 65, bias: -100 },
        { token: 66, bias: 5 },
      ],
    });
  });

  test("with a nucleus of nothing take the most likely token", async () => {
    expect(await sampled({ top_p: 0 })).toEqual({ ...PLAIN, topK: 1, topP: 1 });
  });
});

test("an answer of no tokens at all is an answer", async () => {
  const { app } = harness({ script: () => says("") });
  expect((await complete(app)).choices[0]).toMatchObject({ text: "", finish_reason: "stop" });
});

test("a prompt of no tokens is refused", async () => {
  const { app } = harness();
  expect(await errorOf(await post(app, COMPLETIONS, { prompt: "" }))).toMatchObject({
    status: 400,
    error: { param: "prompt" },
  });
});
