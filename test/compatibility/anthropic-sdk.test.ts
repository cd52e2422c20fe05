/** Anthropic's official client against a live server: what it sends is understood, what it gets it can read. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import Anthropic from "@anthropic-ai/sdk";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { eventually, harness, says, TEMPLATE } from "../server/harness.ts";
import type { EngineRequest, Script } from "../server/scripted-engine.ts";

const HELLO = "Hello world, caf\u00e9 \u{1f600}!";
const question = {
  model: "default",
  max_tokens: 200,
  messages: [{ role: "user" as const, content: "Hi" }],
};
let script: (request: EngineRequest, prompt: string) => Script;
const made = harness({
  chatTemplate: { ...TEMPLATE, source: "<think></think> enable_thinking" },
  script: (request, prompt) => script(request, prompt),
});
let server: RunningServer;
let client: Anthropic;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
  client = new Anthropic({ baseURL: server.url, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server.stop(0));

function play(next: typeof script): void {
  script = next;
}

async function caught(promise: PromiseLike<unknown>): Promise<InstanceType<typeof Anthropic.APIError>> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof Anthropic.APIError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("a message, with the id of its request", async () => {
  play(() => says(HELLO, { cachedTokens: 2 }));
  const message = await client.messages.create({ ...question, system: "Be brief." });
  expect(message.content).toEqual([{ type: "text", text: HELLO, citations: null }]);
  expect([message.role, message.stop_reason]).toEqual(["assistant", "end_turn"]);
  expect(message.usage.cache_read_input_tokens).toBe(2);
  expect(message._request_id).toMatch(/^req_/);
});

test("a raw stream: its events, without pings, are those of the whole message", async () => {
  play(() => says(HELLO));
  const stream = await client.messages.create({ ...question, stream: true });
  let text = "";
  const types = new Set<string>();
  for await (const event of stream) {
    types.add(event.type);
    if (event.type === "content_block_delta" && event.delta.type === "text_delta") text += event.delta.text;
  }
  expect(text).toBe(HELLO);
  expect([...types]).toEqual([
    "message_start",
    "content_block_start",
    "content_block_delta",
    "content_block_stop",
    "message_delta",
    "message_stop",
  ]);
});

test("the stream helper puts the message together as it is when it is not streamed", async () => {
  play(() => says(`<think>\nhm\n</think>\n\n${HELLO} STOP more`, { cachedTokens: 3 }));
  const body = {
    ...question,
    stop_sequences: ["STOP"],
    thinking: { type: "enabled" as const, budget_tokens: 1_024 },
  };
  const whole = await client.messages.create(body);
  const stream = client.messages.stream(body);
  const thoughts: string[] = [];
  stream.on("thinking", (delta) => thoughts.push(delta));
  const streamed = await stream.finalMessage();
  // The helper adds fields of its own.
  expect({ ...streamed, id: whole.id }).toMatchObject({ ...whole });
  expect(thoughts.join("")).toBe("hm");
  expect(await stream.finalText()).toBe(`${HELLO} `);
  expect([streamed.stop_reason, streamed.stop_sequence]).toEqual(["stop_sequence", "STOP"]);
});

test("a conversation goes on with the message as it was received, thoughts included", async () => {
  play(() => says("<think>hm</think>yes"));
  const first = await client.messages.create(question);
  let prompt = "";
  play((_, given) => {
    prompt = given;
    return says("again");
  });
  const messages = [
    ...question.messages,
    { role: "assistant" as const, content: first.content },
    { role: "user" as const, content: "Sure?" },
  ];
  await client.messages.create({ ...question, messages });
  expect(prompt).toContain("<|im_start|>assistant\nyes<|im_end|>");
});

test("tokens are counted as the message's usage tells them", async () => {
  play(() => says("x"));
  const { messages, model } = question;
  const counted = await client.messages.countTokens({ model, messages, system: "Be brief." });
  const { usage } = await client.messages.create({ ...question, system: "Be brief." });
  expect(counted.input_tokens).toBe(usage.input_tokens);
});

describe("errors are the client's own classes", () => {
  const cases = [
    ["a bad value", { temperature: 3 }, Anthropic.BadRequestError, "invalid_request_error"],
    ["an unknown model", { model: "claude-9" }, Anthropic.NotFoundError, "not_found_error"],
    [
      "tools",
      { tools: [{ name: "f", input_schema: { type: "object" as const } }] },
      Anthropic.BadRequestError,
      "invalid_request_error",
    ],
  ] as const;
  for (const [name, fields, errorClass, type] of cases) {
    test(`for ${name}, streamed too`, async () => {
      for (const stream of [false, true]) {
        const body = { ...question, ...fields, stream } as Anthropic.MessageCreateParamsNonStreaming;
        const error = await caught(client.messages.create(body));
        expect(error).toBeInstanceOf(errorClass);
        expect(error.type).toBe(type);
        expect(error.requestID).toMatch(/^req_/);
      }
    });
  }

  test("for a full queue and a dead engine", async () => {
    const fail = (code: "overloaded" | "engine_failed") =>
      play(() => says("x", { failure: { afterTokens: 0, code, message: "16 requests wait" } }));
    fail("overloaded");
    expect(await caught(client.messages.create(question))).toBeInstanceOf(Anthropic.RateLimitError);
    fail("engine_failed");
    expect(await caught(client.messages.create(question))).toBeInstanceOf(Anthropic.InternalServerError);
  });

  test("for a failure in the middle of a stream", async () => {
    const failure = { afterTokens: 3, code: "engine_failed" as const, message: "it died" };
    play(() => says("abcdef", { failure, stepDelayMs: 20 }));
    const stream = client.messages.stream(question);
    let text = "";
    stream.on("text", (delta) => {
      text += delta;
    });
    const error = await caught(stream.finalMessage());
    expect([text, error.type]).toEqual(["abc", "overloaded_error"]);
    expect(error.message).toContain("it died");
  });
});

test("leaving a stream's loop, and aborting one, frees the engine", async () => {
  play(() => says("x".repeat(1_000), { stepDelayMs: 10 }));
  for await (const event of await client.messages.create({ ...question, stream: true }))
    if (event.type === "content_block_delta") break;
  await eventually("the engine is free", () => made.engine.running === 0, 500);
  const stream = client.messages.stream(question);
  stream.on("text", () => stream.abort());
  await caught(stream.finalMessage());
  await eventually("the engine is free again", () => made.engine.running === 0, 500);
});
