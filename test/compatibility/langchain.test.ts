/** LangChain's client for OpenAI, pointed at a live server. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { ChatOpenAI } from "@langchain/openai";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { harness, says } from "../server/harness.ts";

const HELLO = "Hello world, caf\u00e9 \u{1f600}!";
let prompt = "";
const made = harness({
  script: (_, given) => {
    prompt = given;
    return says(HELLO, { tokensPerStep: 2 });
  },
});
let server: RunningServer;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
});
afterAll(() => server.stop(0));

const model = () =>
  new ChatOpenAI({
    model: "default",
    apiKey: "none",
    temperature: 0,
    maxRetries: 0,
    configuration: { baseURL: `${server.url}/v1` },
  });

test("invokes the model with a conversation", async () => {
  const answer = await model().invoke([
    ["system", "Be brief."],
    ["human", "Hi"],
  ]);
  expect(answer.content).toBe(HELLO);
  expect(prompt).toContain("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>");
  expect(answer.usage_metadata).toMatchObject({ output_tokens: expect.any(Number) });
  expect(answer.response_metadata.finish_reason).toBe("stop");
});

test("streams it", async () => {
  let text = "";
  const costs: unknown[] = [];
  for await (const chunk of await model().stream("Hi")) {
    text += String(chunk.content);
    if (chunk.usage_metadata !== undefined) costs.push(chunk.usage_metadata);
  }
  expect(text).toBe(HELLO);
  expect(costs).toHaveLength(1);
});
