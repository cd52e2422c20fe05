/** The typed client against a live server. What is checked of its types is checked by the compiler. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import {
  type Client,
  chatStream,
  completionStream,
  createClient,
  messageStream,
  responseStream,
} from "mistral.ts/client";
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

test("every route is there, with the types of its answers", async () => {
  script = says("Hello");
  const name: string | undefined = (await client.get()).data?.name;
  expect(name).toBe("mistral.ts");
  expect((await client.health.get()).data?.status).toBe("ok");
  expect((await client.ready.get()).data?.status).toBe("ok");
  expect((await client.v1.models.get()).data?.data.map(({ id }) => id)).toEqual(["test/scripted"]);
  expect((await client.v1.models({ id: encodeURIComponent("test/scripted") }).get()).data?.id).toBe(
    "test/scripted",
  );
  const tokens: number[] | undefined = (await client.tokenize.post({ prompt: "ab" })).data?.tokens;
  expect(tokens).toEqual([97, 98]);
  expect((await client.detokenize.post({ tokens: [97, 98] })).data?.prompt).toBe("ab");
  expect((await client.v1.models.status.post({ model_id: "default" })).data?.status).toBe("loaded");
  expect((await client.v1.models.reload.post({ model_id: "default" })).data?.status).toBe("loaded");
  expect((await client.v1.models.load.post({ model_id: "x" })).error?.status).toBe(409);
  const total: number | undefined = (await client.v1.system.info.get()).data?.memory.total_bytes;
  expect(total).toBeGreaterThan(0);
  const counted = await client.v1.messages.count_tokens.post({ messages });
  expect(counted.data?.input_tokens).toBeGreaterThan(0);
  expect((await client.metrics.get()).status).toBe(200);
  expect((await client["api-doc"]["openapi.json"].get()).status).toBe(200);
  expect((await client.docs.get()).status).toBe(200);
});

test("a response is created, fetched, cancelled and deleted", async () => {
  script = says("Hello");
  const { data } = await client.v1.responses.post({ input: "Hi", background: true });
  if (data === null || data instanceof Response) throw new Error("no response");
  const id: string = data.id;
  expect(data.status).toBe("queued");
  expect((await client.v1.responses({ id }).cancel.post()).data?.id).toBe(id);
  const fetched = await client.v1.responses({ id }).get();
  expect(fetched.data instanceof Response ? undefined : fetched.data?.id).toBe(id);
  expect((await client.v1.responses({ id }).delete()).data?.deleted).toBe(true);
  expect((await client.v1.responses({ id }).get()).error?.status).toBe(404);
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

test("responses and messages stream as typed events", async () => {
  script = says("Hello \u{1f600}");
  const deltas: string[] = [];
  for await (const event of responseStream(client, { input: "Hi" }))
    if (event.type === "response.output_text.delta") deltas.push(event.delta);
  expect(deltas.join("")).toBe("Hello \u{1f600}");
  const types = await Array.fromAsync(
    messageStream(client, { messages, max_tokens: 50 }),
    ({ type }) => type,
  );
  expect(types[0]).toBe("message_start");
  expect(types.at(-1)).toBe("message_stop");
  script = says("abc", {
    failure: { afterTokens: 1, code: "engine_failed", message: "it died" },
    prefillDelayMs: 40,
  });
  const failing = Array.fromAsync(responseStream(client, { input: "Hi" }));
  await expectMistralRejection(failing, "engine_failed", "it died");
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
