import { describe, expect, test } from "bun:test";
import { BOS } from "../byte-tokenizer.ts";
import { CHAT, errorOf, harness, post } from "../harness.ts";

interface Tokenized {
  readonly count: number;
  readonly tokens: number[];
  readonly token_strs: string[] | null;
  readonly max_model_len: number;
}

async function tokenize(made: ReturnType<typeof harness>, body: object): Promise<Tokenized> {
  return (await post(made.app, "/tokenize", body)).json() as Promise<Tokenized>;
}

describe("a text", () => {
  test("becomes tokens and comes back, byte for byte", async () => {
    const made = harness();
    const prompt = "The STOP \u{1f600} caf\u00e9<|im_end|>";
    const { tokens, count, token_strs, max_model_len } = await tokenize(made, { prompt });
    expect([count, token_strs, max_model_len]).toEqual([tokens.length, null, 4096]);
    expect(await (await post(made.app, "/detokenize", { tokens })).json()).toEqual({ prompt });
    const skipped = await post(made.app, "/detokenize", { tokens, skip_special_tokens: true });
    expect(await skipped.json()).toEqual({ prompt: "The STOP \u{1f600} caf\u00e9" });
  });

  test("begins with what every text begins with, unless that is not wanted", async () => {
    const made = harness({ bos: true });
    expect((await tokenize(made, { prompt: "a" })).tokens).toEqual([BOS, 97]);
    expect((await tokenize(made, { prompt: "a", add_special_tokens: false })).tokens).toEqual([97]);
  });

  test("is shown token by token where that is asked for", async () => {
    const { token_strs } = await tokenize(harness(), { prompt: "a world\u00e9", return_token_strs: true });
    expect(token_strs).toEqual(["a", " world", "\ufffd", "\ufffd"]);
  });
});

test("a conversation has the tokens that a chat request would have", async () => {
  const made = harness();
  const messages = [{ role: "user", content: "Hi" }];
  const { tokens } = await tokenize(made, { messages });
  await post(made.app, CHAT, { messages });
  expect(tokens).toEqual([...made.engine.requests[0]!.promptTokens]);
});

test("what cannot be is refused by name", async () => {
  const { app } = harness();
  for (const [path, body, param] of [
    ["/tokenize", {}, "prompt"],
    ["/tokenize", { prompt: "a", messages: [{ role: "user", content: "b" }] }, "messages"],
    ["/tokenize", { prompt: 5 }, "prompt"],
    ["/tokenize", { prompt: "a", add_generation_prompt: false }, "add_generation_prompt"],
    ["/detokenize", {}, "tokens"],
    ["/detokenize", { tokens: [1, 266] }, "tokens"],
    ["/detokenize", { tokens: [-1] }, "tokens[0]"],
  ] as const) {
    const { status, error } = await errorOf(await post(app, path, body));
    expect([path, status, error.param]).toEqual([path, 400, param]);
  }
});
