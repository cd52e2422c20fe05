/** The typed client and Anthropic's messages. What is checked of its types is checked by the compiler. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import { type Client, createClient, messageStream } from "../../../src/client.ts";
import { type RunningServer, startServer } from "../../../src/server/listen.ts";
import { expectMistralRejection } from "../../support/expect-error.ts";
import { eventually, harness, says, TEMPLATE } from "../harness.ts";
import type { Script } from "../scripted-engine.ts";

let script: Script;
const made = harness({ chatTemplate: { ...TEMPLATE, source: "</think>" }, script: () => script });
const body = { max_tokens: 100, messages: [{ role: "user" as const, content: "Hi" }] };
let server: RunningServer;
let client: Client;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
  client = createClient(server.url);
});
afterAll(() => server.stop(0));

test("a message and a count are typed", async () => {
  script = says("<think>hm</think>yes");
  const { data } = await client.v1.messages.post(body);
  const texts = data?.content.map((block) => (block.type === "text" ? block.text : block.thinking));
  expect(texts).toEqual(["hm", "yes"]);
  const counted = await client.v1.messages.count_tokens.post({ messages: body.messages });
  expect(counted.data?.input_tokens).toBe(data!.usage.input_tokens);
});

test("a refusal is typed by its status", async () => {
  const { error } = await client.v1.messages.post({ ...body, model: "claude-9" });
  if (error?.status !== 404) throw new Error(`got ${error?.status}`);
  expect(error.value.error.type).toBe("not_found_error");
});

test("the compiler refuses what the server would", async () => {
  // @ts-expect-error max_tokens is required
  const { error } = await client.v1.messages.post({ messages: body.messages });
  expect(error?.status).toBe(400);
});

test("a stream is an iterable of typed events, up to the last", async () => {
  script = says("<think>hm</think>yes");
  let text = "";
  let last = "";
  for await (const event of messageStream(client, body)) {
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") text += event.delta.text;
    last = event.type;
  }
  expect([text, last]).toEqual(["yes", "message_stop"]);
});

test("a refused stream and a failing stream throw", async () => {
  const unknown = messageStream(client, { ...body, model: "claude-9" });
  await expectMistralRejection(Array.fromAsync(unknown), "model_not_found", "claude-9");
  const failure = { afterTokens: 1, code: "engine_failed" as const, message: "it died" };
  script = says("abc", { failure, prefillDelayMs: 40 });
  await expectMistralRejection(Array.fromAsync(messageStream(client, body)), "engine_failed", "it died");
});

test("leaving the loop frees the engine", async () => {
  script = says("x".repeat(1_000), { stepDelayMs: 10 });
  for await (const event of messageStream(client, body)) if (event.type === "content_block_delta") break;
  await eventually("the engine is free", () => made.engine.running === 0, 500);
});
