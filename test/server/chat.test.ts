import { describe, expect, test } from "bun:test";
import { CHAT, chat, harness, minimalBody, post, readEvents, says, TEMPLATE } from "./harness.ts";
import { logprobOf } from "./scripted-engine.ts";

const HELLO = "Hello world, caf\u00e9 \u{1f600}!";

describe("a chat answer", () => {
  test("has OpenAI's shape, exactly", async () => {
    const { app, tokenizer } = harness({ script: () => says(HELLO, { cachedTokens: 3 }) });
    const before = Math.floor(Date.now() / 1000);
    const answer = await chat(app);
    const prompt = TEMPLATE.render({
      messages: [{ role: "user", content: "Hi" }],
      addGenerationPrompt: true,
    });
    const promptTokens = tokenizer.encode(prompt, { addSpecialTokens: true }).length;
    const completionTokens = tokenizer.encode(HELLO, { addSpecialTokens: false }).length;
    expect(answer.id).toMatch(/^chatcmpl-[0-9a-f]{32}$/);
    expect(answer.created).toBeGreaterThanOrEqual(before);
    expect(answer.system_fingerprint).toMatch(/^fp_[0-9a-f]{12}$/);
    expect({ ...answer, id: "", created: 0, system_fingerprint: "" }).toEqual({
      id: "",
      created: 0,
      system_fingerprint: "",
      object: "chat.completion",
      model: "test/scripted",
      choices: [
        {
          index: 0,
          message: { role: "assistant", content: HELLO, refusal: null },
          logprobs: null,
          finish_reason: "stop",
        },
      ],
      usage: {
        prompt_tokens: promptTokens,
        completion_tokens: completionTokens,
        total_tokens: promptTokens + completionTokens,
        prompt_tokens_details: { cached_tokens: 3 },
        completion_tokens_details: { reasoning_tokens: 0 },
      },
    });
  });

  test("streams a role, then text, then a reason, then the cost, then the mark", async () => {
    const { app } = harness();
    const body = { ...minimalBody(CHAT), stream: true, stream_options: { include_usage: true } };
    const { chunks, done } = await readEvents(await post(app, CHAT, body));
    expect(done).toBe(true);
    const [first, ...rest] = chunks;
    expect(first?.choices).toEqual([
      {
        index: 0,
        delta: { role: "assistant", content: "", refusal: null },
        logprobs: null,
        finish_reason: null,
      },
    ]);
    const usage = rest.pop();
    expect(usage?.choices).toEqual([]);
    expect(usage?.usage?.completion_tokens).toBeGreaterThan(0);
    const last = rest.pop();
    expect(last?.choices).toEqual([{ index: 0, delta: {}, logprobs: null, finish_reason: "stop" }]);
    expect(rest.map(({ choices }) => choices[0]?.delta.content).join("")).toBe(HELLO);
    for (const chunk of [first, ...rest, last]) {
      expect(chunk?.usage).toBeNull();
      expect(chunk?.object).toBe("chat.completion.chunk");
      expect(chunk?.id).toBe(first!.id);
    }
  });

  test("leaves the cost out of a stream that did not ask for it", async () => {
    const { app } = harness();
    const { chunks } = await readEvents(await post(app, CHAT, { ...minimalBody(CHAT), stream: true }));
    for (const chunk of chunks) {
      expect(chunk).not.toHaveProperty("usage");
      expect(chunk.choices).toHaveLength(1);
    }
  });

  test("ends with length at the limit, and says so in both forms", async () => {
    const { app, engine } = harness();
    const answer = await chat(app, { max_tokens: 5 });
    expect(answer.choices[0]).toMatchObject({ message: { content: "Hello" }, finish_reason: "length" });
    expect(answer.usage.completion_tokens).toBe(5);
    await chat(app, { max_completion_tokens: 7 });
    expect(engine.requests.map(({ maxTokens }) => maxTokens)).toEqual([5, 7]);
  });

  test("without a limit may fill the context, and is never asked for more", async () => {
    const { app, engine } = harness({ info: { contextLength: 100 } });
    await chat(app);
    await chat(app, { max_tokens: 1_000_000 });
    for (const { promptTokens, maxTokens } of engine.requests)
      expect(promptTokens.length + maxTokens).toBe(100);
  });

  test("reports each token's log-probability, bytes and alternatives", async () => {
    const { app, tokenizer } = harness();
    const { choices } = await chat(app, { logprobs: true, top_logprobs: 2 });
    const content = choices[0]?.logprobs?.content ?? [];
    const tokens = tokenizer.encode(HELLO, { addSpecialTokens: false });
    expect(content).toHaveLength(tokens.length);
    expect(Buffer.from(content.flatMap(({ bytes }) => bytes)).toString()).toBe(HELLO);
    for (const [index, token] of tokens.entries()) {
      const expected = logprobOf(token, 2);
      expect(content[index]?.logprob).toBe(expected.logprob);
      expect(content[index]?.top_logprobs.map(({ logprob }) => logprob)).toEqual(
        expected.top.map((top) => top.logprob),
      );
    }
    expect(content[0]?.token).toBe("H");
    expect(content[5]?.token).toBe(" world");
    const emoji = content.slice(-5, -1);
    expect(emoji.map(({ token }) => token)).toEqual(["\\xf0", "\\x9f", "\\x98", "\\x80"]);
  });

  test("reports only the chosen tokens without top_logprobs, and nothing without logprobs", async () => {
    const { app, engine } = harness();
    const answer = await chat(app, { logprobs: true });
    expect(answer.choices[0]?.logprobs?.content[0]?.top_logprobs).toEqual([]);
    expect((await chat(app, { logprobs: false })).choices[0]?.logprobs).toBeNull();
    expect(engine.requests.map(({ sampling }) => sampling.logprobs)).toEqual([0, -1]);
  });
});

describe("several answers", () => {
  const script = (request: { sampling: { seed: bigint } }) => says(`seed ${request.sampling.seed % 1000n}.`);

  test("are drawn with successive seeds and counted together", async () => {
    const { app, tokenizer } = harness({ script });
    const { choices, usage } = await chat(app, { n: 3, seed: 41 });
    expect(choices.map(({ index, message }) => [index, message.content])).toEqual([
      [0, "seed 41."],
      [1, "seed 42."],
      [2, "seed 43."],
    ]);
    expect(usage.completion_tokens).toBe(
      3 * tokenizer.encode("seed 41.", { addSpecialTokens: false }).length,
    );
    const single = await chat(app, { seed: 41 });
    expect(usage.prompt_tokens).toBe(single.usage.prompt_tokens);
  });

  test("interleave in a stream, each under its index, each with one reason", async () => {
    const { app } = harness({ script });
    const body = { ...minimalBody(CHAT), n: 3, seed: 7, stream: true };
    const { chunks } = await readEvents(await post(app, CHAT, body));
    const texts = ["", "", ""];
    const reasons: string[] = [];
    for (const { choices } of chunks) {
      for (const { index, delta, finish_reason } of choices) {
        texts[index] += delta.content ?? "";
        if (finish_reason !== null) reasons.push(`${index} ${finish_reason}`);
      }
    }
    expect(texts).toEqual(["seed 7.", "seed 8.", "seed 9."]);
    expect(reasons.sort()).toEqual(["0 stop", "1 stop", "2 stop"]);
  });

  test("without a seed differ from request to request; a negative seed is taken as it is", async () => {
    const { app, engine } = harness();
    await chat(app);
    await chat(app);
    await chat(app, { seed: -1 });
    await chat(app, { seed: -1, n: 2 });
    const seeds = engine.requests.map(({ sampling }) => sampling.seed);
    expect(seeds[0]).not.toBe(seeds[1]!);
    expect(seeds.slice(2)).toEqual([2n ** 64n - 1n, 2n ** 64n - 1n, 0n]);
  });
});

describe("the prompt", () => {
  const promptOf = async (fields: Record<string, unknown>, source = TEMPLATE.source) => {
    let seen = "";
    const made = harness({
      chatTemplate: { ...TEMPLATE, source },
      script: (_, prompt) => {
        seen = prompt;
        return says("ok");
      },
    });
    await chat(made.app, fields);
    return seen;
  };

  test("is the rendered template", async () => {
    const messages = [
      { role: "system", content: "Be brief." },
      { role: "user", content: "Hi" },
    ];
    expect(await promptOf({ messages })).toBe(
      "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    );
  });

  test("joins text parts by line breaks and takes an assistant without content", async () => {
    const parts = [
      { type: "text", text: "one" },
      { type: "text", text: "two" },
    ];
    const messages = [
      { role: "user", content: parts },
      { role: "assistant", content: null },
      { role: "user", content: "x" },
    ];
    expect(await promptOf({ messages })).toStartWith(
      "<|im_start|>user\none\ntwo<|im_end|>\n<|im_start|>assistant\n<|im_end|>",
    );
  });

  test("gives a developer's message the role that the template knows", async () => {
    const messages = [
      { role: "developer", content: "d" },
      { role: "user", content: "u" },
    ];
    expect(await promptOf({ messages })).toStartWith("<|im_start|>system\nd");
    expect(await promptOf({ messages }, "knows developer")).toStartWith("<|im_start|>developer\nd");
  });
});
