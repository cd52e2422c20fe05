/** The official client against a live server: what it sends is understood, what it gets it can read. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import OpenAI from "openai";
import { type RunningServer, startServer } from "../../src/server/listen.ts";
import { eventually, harness, says } from "./harness.ts";
import type { EngineRequest, Script } from "./scripted-engine.ts";

const HELLO = "Hello world, caf\u00e9 \u{1f600}!";
const messages = [{ role: "user" as const, content: "Hi" }];
let script: (request: EngineRequest, prompt: string) => Script = () => says(HELLO);
const made = harness({ script: (request, prompt) => script(request, prompt) });
let server: RunningServer;
let client: OpenAI;

beforeAll(() => {
  server = startServer({ hostname: "127.0.0.1", port: 0, models: made.models, settings: made.settings });
  client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey: "none", maxRetries: 0 });
});
afterAll(() => server.stop(0));

function play(next: typeof script): void {
  script = next;
}

/** What a call of the client threw. */
async function caught(promise: PromiseLike<unknown>): Promise<InstanceType<typeof OpenAI.APIError>> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof OpenAI.APIError) return error;
    throw error;
  }
  throw new Error("nothing was thrown");
}

test("chat", async () => {
  play(() => says(HELLO));
  const answer = await client.chat.completions.create({ model: "default", messages });
  expect(answer.choices[0]?.message.content).toBe(HELLO);
  expect(answer.usage?.total_tokens).toBe(answer.usage!.prompt_tokens + answer.usage!.completion_tokens);
});

test("a chat stream, its text that of the whole answer, its cost last", async () => {
  play(() => says(HELLO));
  const stream = await client.chat.completions.create({
    model: "test/scripted",
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = await Array.fromAsync(stream);
  expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe(HELLO);
  expect(chunks.at(-1)?.usage?.completion_tokens).toBeGreaterThan(0);
  expect(chunks.filter(({ usage }) => usage != null)).toHaveLength(1);
});

test("the stream helper puts the message together", async () => {
  play(() => says(HELLO));
  const stream = client.chat.completions.stream({
    model: "default",
    messages,
    logprobs: true,
    top_logprobs: 1,
  });
  const final = await stream.finalChatCompletion();
  expect(final.choices[0]?.message.content).toBe(HELLO);
  expect(final.choices[0]?.finish_reason).toBe("stop");
  const content = final.choices[0]?.logprobs?.content ?? [];
  expect(Buffer.from(content.flatMap(({ bytes }) => bytes ?? [])).toString()).toBe(HELLO);
});

test("completions of token ids with echo and log-probabilities, whole and streamed", async () => {
  play((_, prompt) => says(`${prompt}!`));
  const body = { model: "default", prompt: [72, 105], echo: true, logprobs: 1, max_tokens: 3 };
  const whole = await client.completions.create(body);
  expect(whole.choices[0]?.text).toBe("HiHi!");
  expect(whole.choices[0]?.logprobs?.token_logprobs?.[0]).toBeNull();
  const stream = await client.completions.create({ ...body, stream: true });
  const texts = await Array.fromAsync(stream, ({ choices }) => choices[0]?.text ?? "");
  expect(texts.join("")).toBe("HiHi!");
});

test("models, by name also where the name has a slash", async () => {
  const models = await Array.fromAsync(await client.models.list());
  expect(models.map(({ id }) => id)).toEqual(["test/scripted"]);
  expect(await client.models.retrieve("test/scripted")).toMatchObject({
    object: "model",
    created: 1_700_000_000,
  });
  expect((await fetch(`${server.url}/v1/models/test/scripted`)).status).toBe(200);
  expect(await caught(client.models.retrieve("gpt-9"))).toBeInstanceOf(OpenAI.NotFoundError);
});

describe("errors are the client's own classes", () => {
  test("for a bad value", async () => {
    const error = await caught(
      client.chat.completions.create({ model: "default", messages, temperature: 3 }),
    );
    expect(error).toBeInstanceOf(OpenAI.BadRequestError);
    expect([error.status, error.param, error.type]).toEqual([400, "temperature", "invalid_request_error"]);
  });

  test("for an unknown model, streamed too", async () => {
    for (const stream of [false, true]) {
      const error = await caught(client.chat.completions.create({ model: "gpt-9", messages, stream }));
      expect(error).toBeInstanceOf(OpenAI.NotFoundError);
      expect(error.code).toBe("model_not_found");
    }
  });

  test("for a full queue, streamed too", async () => {
    play(() => says("x", { failure: { afterTokens: 0, code: "overloaded", message: "16 requests wait" } }));
    for (const stream of [false, true]) {
      const error = await caught(client.chat.completions.create({ model: "default", messages, stream }));
      expect(error).toBeInstanceOf(OpenAI.RateLimitError);
      expect(error.message).toContain("16 requests wait");
    }
  });

  test("for a failure in the middle of a stream", async () => {
    play(() =>
      says("abcdef", {
        failure: { afterTokens: 3, code: "engine_failed", message: "it died" },
        stepDelayMs: 20,
      }),
    );
    const stream = await client.chat.completions.create({ model: "default", messages, stream: true });
    let text = "";
    const error = await caught(
      (async () => {
        for await (const { choices } of stream) text += choices[0]?.delta.content ?? "";
      })(),
    );
    expect([text, error.code]).toEqual(["abc", "engine_failed"]);
    expect(error.message).toContain("it died");
  });
});

test("leaving a stream's loop frees the engine", async () => {
  play(() => says("x".repeat(1_000), { stepDelayMs: 10 }));
  const stream = await client.chat.completions.create({ model: "default", messages, stream: true });
  for await (const { choices } of stream) if (choices[0]?.delta.content === "x") break;
  await eventually("the engine is free", () => made.engine.running === 0, 500);
});

test("sixteen streams at once are each what they are alone", async () => {
  play((_, prompt) => says(`about ${prompt}`, { stepDelayMs: 1 }));
  const ask = async (index: number) => {
    const body = { model: "default", prompt: `p${index}`, stream: true as const };
    return (
      await Array.fromAsync(await client.completions.create(body), ({ choices }) => choices[0]?.text)
    ).join("");
  };
  const texts = await Promise.all(Array.from({ length: 16 }, (_, index) => ask(index)));
  expect(texts).toEqual(Array.from({ length: 16 }, (_, index) => `about p${index}`));
});

describe("responses", () => {
  test("are created, fetched, continued and deleted", async () => {
    play(() => says(HELLO));
    const first = await client.responses.create({ model: "default", input: "Hi", instructions: "Be brief." });
    expect([first.output_text, first.status, first.object]).toEqual([HELLO, "completed", "response"]);
    const fetched = await client.responses.retrieve(first.id);
    expect(fetched.output).toEqual(first.output);
    play((_, prompt) => says(prompt.includes(HELLO) ? "I know" : "Who?"));
    const second = await client.responses.create({
      model: "default",
      input: "And?",
      previous_response_id: first.id,
    });
    expect(second.output_text).toBe("I know");
    await client.responses.delete(first.id);
    expect(await caught(client.responses.retrieve(first.id))).toBeInstanceOf(OpenAI.NotFoundError);
  });

  test("stream; the helper's final response is the one that is kept", async () => {
    play(() => says(HELLO));
    const stream = client.responses.stream({ model: "default", input: "Hi" });
    let text = "";
    stream.on("response.output_text.delta", ({ delta }) => {
      text += delta;
    });
    const final = await stream.finalResponse();
    expect([text, final.output_text]).toEqual([HELLO, HELLO]);
    expect((await client.responses.retrieve(final.id)).output_text).toBe(HELLO);
  });

  test("run in the background, are read while they run, and are cancelled", async () => {
    play(() => says(HELLO, { stepDelayMs: 4 }));
    const queued = await client.responses.create({ model: "default", input: "Hi", background: true });
    expect(queued.status).toBe("queued");
    const events = await Array.fromAsync(await client.responses.retrieve(queued.id, { stream: true }));
    expect(events.at(-1)?.type).toBe("response.completed");
    const rest = await Array.fromAsync(
      await client.responses.retrieve(queued.id, { stream: true, starting_after: 3 }),
    );
    expect(rest).toEqual(events.slice(4));

    play(() => says("x".repeat(1_000), { stepDelayMs: 10 }));
    const long = await client.responses.create({ model: "default", input: "Hi", background: true });
    await eventually("it runs", () => made.engine.running === 1);
    expect((await client.responses.cancel(long.id)).status).toBe("cancelled");
    await eventually("the engine is free", () => made.engine.running === 0, 500);
  });

  test("that are cut are incomplete, that fail raise, and refusals have their class", async () => {
    play(() => says(HELLO));
    const cut = await client.responses.create({ model: "default", input: "Hi", max_output_tokens: 2 });
    expect([cut.status, cut.incomplete_details?.reason]).toEqual(["incomplete", "max_output_tokens"]);
    play(() => {
      const failure = { afterTokens: 3, code: "engine_failed", message: "it died" } as const;
      return says("abcdef", { failure, stepDelayMs: 20 });
    });
    const error = await caught(client.responses.stream({ model: "default", input: "Hi" }).finalResponse());
    expect(error.message).toContain("it died");
    const refused = await caught(client.responses.create({ model: "default", input: "Hi", temperature: 3 }));
    expect([refused instanceof OpenAI.BadRequestError, refused.param]).toEqual([true, "temperature"]);
  });
});
