/** The typed client against a live server. What is checked of its types is checked by the compiler. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Client, chatStream, completionStream, createClient } from "../../src/client.ts";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { expectMistralRejection } from "../support/expect-error.ts";
import { eventually, harness, says } from "./harness.ts";
import type { Script } from "./scripted-engine.ts";

let script: Script = says("Hello");
const made = harness({ script: () => script });
const messages = [{ role: "user" as const, content: "Hi" }];
let server: RunningServer;
let client: Client;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
  client = createClient(server.url, { apiKey: "k" });
});
afterAll(() => server.stop(0));

test("answers are typed, and texts that look like dates stay texts", async () => {
  script = says("2024-05-06T07:08:09.000Z");
  const { data, error } = await client.v1.chat.completions.post({ messages, max_tokens: null });
  expect(error).toBeNull();
  const content: string | undefined = data?.choices[0]?.message.content;
  expect(content).toBe("2024-05-06T07:08:09.000Z");
});

test("refusals are typed by their status", async () => {
  const { data, error } = await client.v1.completions.post({ prompt: "Hi", model: "gpt-9" });
  expect(data).toBeNull();
  if (error?.status !== 404) throw new Error(`got ${error?.status}`);
  const param: string | null = error.value.error.param;
  expect(param).toBe("model");
});

test("the compiler refuses what the server would", async () => {
  // @ts-expect-error a temperature is a number
  const { error } = await client.v1.chat.completions.post({ messages, temperature: "hot" });
  expect(error?.status).toBe(400);
});

test("every route is there", async () => {
  expect((await client.get()).data?.name).toBe("mistral.ts");
  expect((await client.health.get()).data?.status).toBe("ok");
  expect((await client.v1.models.get()).data?.data.map(({ id }) => id)).toEqual(["test/scripted"]);
  expect((await client.v1.models({ id: encodeURIComponent("test/scripted") }).get()).data?.id).toBe(
    "test/scripted",
  );
});

test("streams are iterables of typed chunks", async () => {
  script = says("Hello \u{1f600}");
  const texts = await Array.fromAsync(
    chatStream(client, { messages }),
    ({ choices }) => choices[0]?.delta.content,
  );
  expect(texts.join("")).toBe("Hello \u{1f600}");
  const pieces = await Array.fromAsync(
    completionStream(client, { prompt: "x" }),
    ({ choices }) => choices[0]?.text,
  );
  expect(pieces.join("")).toBe("Hello \u{1f600}");
});

test("a refused stream and a failing stream throw", async () => {
  await expectMistralRejection(
    Array.fromAsync(chatStream(client, { messages, n: 0 })),
    "invalid_request",
    "'n'",
  );
  script = says("abc", {
    failure: { afterTokens: 1, code: "engine_failed", message: "it died" },
    prefillDelayMs: 40,
  });
  await expectMistralRejection(Array.fromAsync(chatStream(client, { messages })), "engine_failed", "it died");
});

test("leaving the loop, or aborting, frees the engine", async () => {
  script = says("x".repeat(1_000), { stepDelayMs: 10 });
  for await (const { choices } of chatStream(client, { messages }))
    if (choices[0]?.delta.content === "x") break;
  await eventually("the engine is free", () => made.engine.running === 0, 500);

  const abort = new AbortController();
  const streamed = Array.fromAsync(chatStream(client, { messages }, { signal: abort.signal }));
  await eventually("it runs", () => made.engine.running === 1);
  abort.abort();
  await expect(streamed).rejects.toThrow();
  await eventually("the engine is free again", () => made.engine.running === 0, 500);
});
