/** Vercel's AI SDK with its provider for OpenAI-compatible servers, against a live server. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embedMany, generateText, streamText } from "ai";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { eventually, harness, says, TEMPLATE } from "../server/harness.ts";
import { type EngineRequest, type Script, scriptedVector } from "../server/scripted-engine.ts";

const HELLO = "Hello world, caf\u00e9 \u{1f600}!";
let script: (request: EngineRequest, prompt: string) => Script;
const made = harness({
  chatTemplate: { ...TEMPLATE, source: "<think></think> enable_thinking" },
  script: (request, prompt) => script(request, prompt),
});
let server: RunningServer;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
});
afterAll(() => server.stop(0));

const provider = () =>
  createOpenAICompatible({ name: "local", baseURL: `${server.url}/v1`, includeUsage: true });

test("generates a text, its thoughts apart, its cost told", async () => {
  script = () => says(`<think>\nhm\n</think>\n\n${HELLO}`);
  const result = await generateText({
    model: provider()("default"),
    instructions: "Be brief.",
    prompt: "Hi",
    maxRetries: 0,
  });
  expect([result.text, result.reasoningText, result.finishReason]).toEqual([HELLO, "hm", "stop"]);
  const { inputTokens, outputTokens, totalTokens } = result.usage;
  expect(totalTokens).toBe(inputTokens! + outputTokens!);
  expect(inputTokens).toBeGreaterThan(10);
});

test("streams a text, thoughts before it", async () => {
  script = () => says(`<think>hm</think>${HELLO}`, { tokensPerStep: 2 });
  const result = streamText({ model: provider()("default"), prompt: "Hi", maxRetries: 0 });
  let text = "";
  let thoughts = "";
  for await (const part of result.fullStream) {
    if (part.type === "text-delta") text += part.text;
    if (part.type === "reasoning-delta") {
      expect(text).toBe("");
      thoughts += part.text;
    }
  }
  expect([text, thoughts, await result.finishReason]).toEqual([HELLO, "hm", "stop"]);
  expect((await result.usage).outputTokens).toBeGreaterThan(10);
});

test("sends its settings in the fields we read", async () => {
  script = () => says("abc STOP def");
  const result = await generateText({
    model: provider()("default"),
    prompt: "Hi",
    maxOutputTokens: 50,
    temperature: 0.5,
    topP: 0.5,
    seed: 7,
    frequencyPenalty: 0.25,
    presencePenalty: 0.25,
    stopSequences: ["STOP"],
    maxRetries: 0,
  });
  expect(result.text).toBe("abc ");
  expect(made.engine.requests.at(-1)).toMatchObject({
    maxTokens: 50,
    sampling: { temperature: 0.5, topP: 0.5, seed: 7n, frequencyPenalty: 0.25, presencePenalty: 0.25 },
  });
});

test("completes a prompt", async () => {
  script = (_, prompt) => says(`${prompt}!`);
  const model = provider().completionModel("default");
  const result = await generateText({ model, prompt: "Hi", maxRetries: 0 });
  expect(result.text).toContain("Hi");
});

test("raises our refusals, and our failures in the middle of a stream", async () => {
  script = () => says("x");
  const refused = generateText({ model: provider()("gpt-9"), prompt: "Hi", maxRetries: 0 });
  await expect(refused).rejects.toMatchObject({ statusCode: 404, message: expect.stringContaining("gpt-9") });
  const failure = { afterTokens: 3, code: "engine_failed" as const, message: "it died" };
  script = () => says("abcdef", { failure, stepDelayMs: 20 });
  const errors: unknown[] = [];
  const result = streamText({
    model: provider()("default"),
    prompt: "Hi",
    maxRetries: 0,
    onError: ({ error }) => {
      errors.push(error);
    },
  });
  let text = "";
  for await (const part of result.fullStream) if (part.type === "text-delta") text += part.text;
  expect(text).toBe("abc");
  expect(JSON.stringify(errors.map((error) => (error instanceof Error ? error.message : error)))).toContain(
    "it died",
  );
});

test("an aborted stream frees the engine", async () => {
  script = () => says("x".repeat(1_000), { stepDelayMs: 10 });
  const abort = new AbortController();
  const result = streamText({
    model: provider()("default"),
    prompt: "Hi",
    maxRetries: 0,
    abortSignal: abort.signal,
  });
  for await (const part of result.fullStream) if (part.type === "text-delta") abort.abort();
  await eventually("the engine is free", () => made.engine.running === 0, 500);
});

test("embeddings, in the order of the values, with their cost", async () => {
  script = () => says("");
  const values = ["one", "two and more"];
  const { embeddings, usage } = await embedMany({ model: provider().embeddingModel("default"), values });
  const unit = values.map((text) => {
    const vector = scriptedVector(new Int32Array(new TextEncoder().encode(text)));
    return Array.from(vector, (value) => Math.fround(value / Math.hypot(...vector)));
  });
  expect(embeddings).toEqual(unit);
  expect(usage.tokens).toBe(values.join("").length);
});
