/** Where an answer begins in the text: a completion goes on in the middle of it, a chat answer begins its own. */

import { describe, expect, test } from "bun:test";
import { createApp } from "../../src/server/app.ts";
import { ModelRegistry } from "../../src/server/model-registry.ts";
import type { ChatCompletion, Completion, CompletionChunk } from "../../src/server/openai/responses.ts";
import { tokenizerFromGguf } from "../../src/text/tokenizer.ts";
import { sentencePieceMetadata } from "../text/fixtures.ts";
import { CHAT, COMPLETIONS, minimalBody, post, readEvents, TEMPLATE } from "./harness.ts";
import { ScriptedEngine } from "./scripted-engine.ts";

/** Its tokens carry the space before a word, and its decoder drops the one that begins a text. */
const tokenizer = tokenizerFromGguf(sentencePieceMetadata("llama2"));
const said = tokenizer.encode("the the", { addSpecialTokens: false });

function app() {
  const info = { vocabularySize: tokenizer.vocabularySize };
  const engine = new ScriptedEngine(() => ({ tokens: [...said, tokenizer.eosToken!] }), info);
  const eosTokens = [tokenizer.eosToken!];
  const shared = { created: 0, tokenizer, chatTemplate: TEMPLATE, generationDefaults: {}, eosTokens };
  const models = new ModelRegistry([{ id: "test/pieces", engine, ...shared }]);
  return createApp({ models, settings: { keepAliveIntervalMs: 10_000 } });
}

const complete = async (fields: Record<string, unknown>) =>
  (await (await post(app(), COMPLETIONS, { prompt: "the", ...fields })).json()) as Completion;

test("the tokens have the space that the test is about", () => {
  expect(said.map((token) => Buffer.from(tokenizer.tokenBytes(token)).toString())).toEqual([" the", " the"]);
});

describe("a completion", () => {
  test("keeps the space between the prompt and itself", async () => {
    expect((await complete({})).choices[0]!.text).toBe(" the the");
    const { chunks } = await readEvents<CompletionChunk>(
      await post(app(), COMPLETIONS, { prompt: "the", stream: true }),
    );
    expect(chunks.map(({ choices }) => choices[0]!.text).join("")).toBe(" the the");
  });

  test("says where its tokens stand, behind an echoed prompt too", async () => {
    const alone = (await complete({ logprobs: 1 })).choices[0]!;
    expect(alone.logprobs).toMatchObject({ tokens: [" the", " the"], text_offset: [0, 4] });
    const echoed = (await complete({ logprobs: 1, echo: true })).choices[0]!;
    expect(echoed.text).toBe("the the the");
    const { tokens, text_offset: offsets } = echoed.logprobs!;
    // The prompt's own first token is shown without the space that the tokenizer put there.
    expect(offsets.slice(-3)).toEqual([0, 3, 7]);
    expect(tokens.slice(-2)).toEqual([" the", " the"]);
    expect(echoed.text.slice(offsets.at(-1))).toBe(" the");
  });

  test("of token ids stands where the decoded prompt ends", async () => {
    const prompt = tokenizer.encode("the", { addSpecialTokens: true });
    const { text, logprobs } = (await complete({ prompt, logprobs: 1, echo: true })).choices[0]!;
    expect(text.slice(logprobs!.text_offset.at(-2))).toBe(" the the");
    expect(text).toBe(`${tokenizer.decode(prompt, { skipSpecialTokens: false })} the the`);
  });
});

test("a chat answer begins without it", async () => {
  const answer = (await (await post(app(), CHAT, minimalBody(CHAT))).json()) as ChatCompletion;
  expect(answer.choices[0]!.message.content).toBe("the the");
});
