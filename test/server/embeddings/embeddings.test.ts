/** POST /v1/embeddings over a scripted engine: fields, shapes, refusals, order and aborts. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { createClient } from "../../../src/client.ts";
import type { EmbeddingList } from "../../../src/server/embeddings/parameters.ts";
import { LIMITS } from "../../../src/server/limits.ts";
import { type RunningServer, startServer } from "../../../src/server/listen.ts";
import {
  errorOf,
  eventually,
  get,
  type HarnessOptions,
  harness,
  post,
  says,
  withServer,
} from "../harness.ts";
import { RawClient } from "../raw-client.ts";
import { type EngineRequest, scriptedVector } from "../scripted-engine.ts";

const EMBEDDINGS = "/v1/embeddings";
const SILENT = { tokens: [] };

function made(options: HarnessOptions = {}) {
  return harness({ script: () => SILENT, ...options });
}

async function embed(fields: Record<string, unknown>, from = made()) {
  const response = await post(from.app, EMBEDDINGS, fields);
  const text = await response.text();
  expect(`${response.status} ${text}`).toStartWith("200 ");
  return { list: JSON.parse(text) as EmbeddingList, warning: response.headers.get("x-mistral-warning") };
}

/** What the scripted engine's vector becomes. */
function unit(tokens: readonly number[]): number[] {
  const vector = scriptedVector(Int32Array.from(tokens));
  const length = Math.hypot(...vector);
  return Array.from(vector, (value) => Math.fround(value / length));
}

const bytes = (text: string): number[] => [...new TextEncoder().encode(text)];

describe("what is embedded", () => {
  test.each([
    ["a text", "Hello", [bytes("Hello")]],
    ["texts", ["Hello", "a", "bcd"], [bytes("Hello"), bytes("a"), bytes("bcd")]],
    ["token ids", [7, 8, 9], [[7, 8, 9]]],
    ["lists of token ids", [[7], [8, 9]], [[7], [8, 9]]],
  ] as const)("%s", async (_, input, tokens) => {
    const from = made();
    const { list, warning } = await embed({ input }, from);
    expect(warning).toBeNull();
    const count = tokens.flat().length;
    expect(list).toEqual({
      object: "list",
      data: tokens.map((each, index) => ({ object: "embedding", index, embedding: unit(each) })),
      model: "test/scripted",
      usage: { prompt_tokens: count, total_tokens: count },
    });
    for (const request of from.engine.requests) {
      expect(request).toMatchObject({ maxTokens: 0, embedding: "last", priority: "normal" });
    }
  });

  test("texts begin as every text of the model does, token ids as they are", async () => {
    const from = made({ bos: true });
    const { list } = await embed({ input: "Hi" }, from);
    expect(list.usage.prompt_tokens).toBe(3);
    expect((await embed({ input: bytes("Hi") }, from)).list.usage.prompt_tokens).toBe(2);
  });

  test("pooling, priority and salt reach the engine; what has no effect is told", async () => {
    const from = made();
    const fields = {
      pooling: "mean",
      service_tier: "flex",
      cache_salt: "s",
      user: "u",
      encoding_format: null,
    };
    const { warning } = await embed({ input: "Hi", ...fields }, from);
    expect(from.engine.requests[0]).toMatchObject({ embedding: "mean", priority: "batch", cacheSalt: "s" });
    expect(warning).toBe("parameter 'user' has no effect here");
  });

  test("as many texts as are allowed come back in their order, with no more at once than the engine runs", async () => {
    let atOnce = 0;
    const from = made({
      info: { sequencesMax: 4 },
      // Later ones are done sooner.
      script: ({ promptTokens }: EngineRequest) => {
        atOnce = Math.max(atOnce, from.engine.running + 1);
        return { tokens: [], prefillDelayMs: promptTokens.length % 3 };
      },
    });
    const input = Array.from({ length: 300 }, (_, index) => [1 + (index % 5), ...bytes(String(index))]);
    const { list } = await embed({ input }, from);
    expect(list.data.map(({ embedding }) => embedding)).toEqual(input.map(unit));
    expect(list.data.map(({ index }) => index)).toEqual(input.map((_, index) => index));
    expect(list.usage.prompt_tokens).toBe(input.flat().length);
    expect(atOnce).toBe(4);
  });
});

test("base64 holds the same numbers, as little-endian 32-bit floats", async () => {
  const { list } = await embed({ input: "Hello", encoding_format: "base64" });
  const text = list.data[0]!.embedding;
  if (typeof text !== "string") throw new Error("not base64");
  const view = new DataView(Uint8Array.fromBase64(text).buffer);
  const numbers = Array.from({ length: view.byteLength / 4 }, (_, index) => view.getFloat32(index * 4, true));
  expect(numbers).toEqual(unit(bytes("Hello")));
});

describe("refused with 400, naming the field:", () => {
  test.each([
    ["no input", {}, "input"],
    ["no texts", { input: [] }, "input"],
    ["an empty text", { input: "" }, "input"],
    ["an empty text among others", { input: ["a", ""] }, "input"],
    ["no token ids", { input: [[1], []] }, "input"],
    ["texts mixed with ids", { input: ["a", 1] }, "input"],
    ["an id outside the vocabulary", { input: [1, 266] }, "input"],
    ["too many texts", { input: new Array(LIMITS.embeddingInputs + 1).fill("a") }, "input"],
    ["a number of dimensions", { input: "a", dimensions: 64 }, "dimensions"],
    ["another format", { input: "a", encoding_format: "int8" }, "encoding_format"],
    ["another pooling", { input: "a", pooling: "max" }, "pooling"],
  ])("%s", async (_, fields, parameter) => {
    const from = made();
    const { status, error } = await errorOf(await post(from.app, EMBEDDINGS, fields));
    expect([status, error.param]).toEqual([400, parameter]);
    expect(from.engine.requests).toEqual([]);
  });
});

describe("an input that is too long", () => {
  const info = { contextLength: 10 };

  test("is refused with its number of tokens, and nothing is run", async () => {
    for (const long of ["x".repeat(11), new Array(11).fill(1), "x".repeat(5_000)]) {
      const from = made({ info });
      const input = typeof long === "string" ? ["fits", long] : [[1], long];
      const { status, error } = await errorOf(await post(from.app, EMBEDDINGS, { input }));
      expect([status, error.code, error.param]).toEqual([400, "context_length_exceeded", "input"]);
      expect(error.message).toContain("10");
      expect(from.engine.requests).toEqual([]);
    }
  });

  test("that just fits is taken", async () => {
    expect((await embed({ input: "x".repeat(10) }, made({ info }))).list.usage.prompt_tokens).toBe(10);
  });

  test("keeps its first tokens where that is asked for, and the client is told", async () => {
    for (const length of [11, 5_000]) {
      const text = "0123456789abc".repeat(length).slice(0, length);
      const fields = { input: ["fits", text], truncate_sequence: true };
      const { list, warning } = await embed(fields, made({ info }));
      expect(list.data[1]!.embedding).toEqual(unit(bytes("0123456789")));
      expect(list.data[0]!.embedding).toEqual(unit(bytes("fits")));
      expect(list.usage.prompt_tokens).toBe(14);
      expect(warning).toBe("truncate_sequence kept the first 10 tokens of input 1");
    }
  });
});

describe("a failure", () => {
  test("of one input is that of the request, and the others are stopped", async () => {
    const from = made({
      script: ({ promptTokens }) =>
        promptTokens[0] === 1
          ? { tokens: [], failure: { afterTokens: 0, code: "overloaded", message: "the queue is full" } }
          : { tokens: [], prefillDelayMs: 5_000 },
    });
    const response = await post(from.app, EMBEDDINGS, { input: [[2], [1], [3]] });
    expect(response.headers.get("retry-after")).not.toBeNull();
    const { status, error } = await errorOf(response);
    expect([status, error.message]).toEqual([429, "the queue is full"]);
    await eventually("the engine is free", () => from.engine.running === 0, 500);
  });

  test.each([
    ["zeros", [0, 0, 0]],
    ["numbers that overflowed", [1, Number.NaN, 1]],
    ["infinities", [1, Number.POSITIVE_INFINITY, 1]],
  ])("a vector of %s is one", async (_, values) => {
    const from = made({ script: () => ({ tokens: [], vector: Float32Array.from(values) }) });
    const { status, error } = await errorOf(await post(from.app, EMBEDDINGS, { input: "Hi" }));
    expect([status, error.code]).toEqual([503, "engine_failed"]);
  });

  test("an engine that ends without a vector is one", async () => {
    const from = made({ script: () => ({ tokens: [], vanishAfterTokens: 0 }) });
    expect((await errorOf(await post(from.app, EMBEDDINGS, { input: "Hi" }))).error.code).toBe(
      "engine_failed",
    );
  });
});

test("the access log and the figures have its cost, its queue and no text of it", async () => {
  const lines: string[] = [];
  const from = made({
    script: () => ({ tokens: [], queueSeconds: 0.25 }),
    settings: {
      accessLog: { format: "json", health: false, prompts: false, write: (line) => lines.push(line) },
    },
  });
  await embed({ input: ["secret", "also"] }, from);
  await eventually("two lines", () => lines.length === 2);
  expect(JSON.parse(lines[1]!)).toMatchObject({
    event: "request_completed",
    route: EMBEDDINGS,
    model: "test/scripted",
    status: 200,
    prompt_tokens: 10,
    completion_tokens: 0,
  });
  expect(lines.join()).not.toContain("secret");
  const figures = await (await get(from.app, "/metrics")).text();
  expect(figures).toMatch(/mistralrs_queue_time_seconds_count\{[^}]*\/v1\/embeddings[^}]*\} 2\n/);
});

test("a client that leaves frees the engine, and no further input is begun", async () => {
  const script = () => ({ tokens: [], prefillDelayMs: 10_000 });
  await withServer({ script, info: { sequencesMax: 2 } }, async (server, { engine }) => {
    const client = await RawClient.open(server.port);
    client.post(EMBEDDINGS, { input: ["a", "b", "c", "d"] });
    await eventually("two inputs run", () => engine.running === 2);
    client.leave();
    await eventually("the engine is free", () => engine.running === 0, 500);
    await eventually("the request is closed", () => server.openRequests === 0, 500);
    expect([engine.aborted, engine.requests.length]).toEqual([2, 2]);
  });
});

test("tokenizing many texts lets others have their turn, and stops when the client leaves", async () => {
  let encoded = 0;
  const from = made();
  const { tokenizer } = from;
  const encode = tokenizer.encode.bind(tokenizer);
  tokenizer.encode = (text, options) => {
    encoded += 1;
    Bun.sleepSync(3);
    return encode(text, options);
  };
  const abort = new AbortController();
  const body = { input: new Array(400).fill("a") };
  const answer = post(from.app, EMBEDDINGS, body, { signal: abort.signal });
  await eventually("the first are tokenized", () => encoded > 0);
  expect(encoded).toBeLessThan(50);
  abort.abort();
  await answer.catch(() => {});
  expect(encoded).toBeLessThan(100);
  expect(from.engine.requests).toEqual([]);
});

test("one that takes longer than the server gives a request is answered in time", async () => {
  const from = made({
    script: () => ({ tokens: [], prefillDelayMs: 10_000 }),
    settings: { requestTimeoutMs: 50 },
  });
  const { status, error } = await errorOf(await post(from.app, EMBEDDINGS, { input: "Hi" }));
  expect([status, error.code]).toEqual([504, "request_timeout"]);
  await eventually("the engine is free", () => from.engine.running === 0, 500);
});

describe("read by", () => {
  let server: RunningServer;
  const from = made({ script: () => says("") });
  beforeAll(() => {
    server = startServer({ hostname: "127.0.0.1", port: 0, models: from.models, settings: from.settings });
  });
  afterAll(() => server.stop(0));

  test("the official client, which asks for base64 unless told, and for floats when told", async () => {
    const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
    for (const format of [{}, { encoding_format: "float" }] as const) {
      const { data, usage, model } = await client.embeddings.create({
        model: "default",
        input: ["Hello", "you"],
        ...format,
      });
      expect(data.map(({ embedding }) => [...embedding])).toEqual([unit(bytes("Hello")), unit(bytes("you"))]);
      expect(usage).toEqual({ prompt_tokens: 8, total_tokens: 8 });
      expect(model).toBe("test/scripted");
    }
  });

  test("the typed client", async () => {
    const client = createClient(server.url);
    const { data, error } = await client.v1.embeddings.post({ input: "Hello", pooling: "mean" });
    expect(error).toBeNull();
    const embedding: number[] | string | undefined = data?.data[0]?.embedding;
    expect(embedding).toEqual(unit(bytes("Hello")));
    // @ts-expect-error there is no such pooling
    expect((await client.v1.embeddings.post({ input: "Hello", pooling: "max" })).error?.status).toBe(400);
  });
});
