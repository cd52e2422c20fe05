import { describe, expect, test } from "bun:test";
import type { ResponseBody } from "../../../src/server/responses/shapes.ts";
import { readResponse } from "../event-log.ts";
import {
  errorOf,
  eventually,
  get,
  type Harness,
  harness,
  post,
  RESPONSES,
  says,
  withServer,
} from "../harness.ts";
import { RawClient } from "../raw-client.ts";

const HELLO = "Hello world, caf\u00e9 \u{1f600}!";
const LONG = says("x".repeat(1_000), { stepDelayMs: 10 });

async function create(made: Harness, fields: Record<string, unknown> = {}): Promise<ResponseBody> {
  const response = await post(made.app, RESPONSES, { input: "Hi", ...fields });
  const text = await response.text();
  expect(`${response.status} ${text}`).toStartWith("200 ");
  return JSON.parse(text) as ResponseBody;
}

const stream = (made: Harness, fields: Record<string, unknown> = {}) =>
  post(made.app, RESPONSES, { input: "Hi", stream: true, ...fields }).then((response) =>
    readResponse(response),
  );

async function fetched(made: Harness, id: string): Promise<ResponseBody> {
  return (await get(made.app, `${RESPONSES}/${id}`)).json() as Promise<ResponseBody>;
}

const promptOf = ({ engine, tokenizer }: Harness) =>
  tokenizer.decode([...engine.requests.at(-1)!.promptTokens], { skipSpecialTokens: false });

/** Without what differs from one run of the same request to the next. */
function withoutIds(body: ResponseBody): unknown {
  const output = body.output.map((item) => ({ ...item, id: "" }));
  return { ...body, id: "", created_at: 0, completed_at: 0, output };
}

describe("a response", () => {
  test("has OpenAI's shape, and can be fetched as it was given", async () => {
    const made = harness({ script: () => says(HELLO, { cachedTokens: 3 }) });
    const body = await create(made, {
      metadata: { topic: "greeting" },
      instructions: "Be brief.",
      temperature: 0,
    });
    expect(body.id).toMatch(/^resp_[0-9a-f]{32}$/);
    expect(body.output[0]?.id).toMatch(/^msg_[0-9a-f]{32}$/);
    expect(body).toMatchObject({
      object: "response",
      status: "completed",
      output_text: HELLO,
      output: [
        {
          type: "message",
          role: "assistant",
          status: "completed",
          content: [{ type: "output_text", text: HELLO, annotations: [], logprobs: [] }],
        },
      ],
      error: null,
      incomplete_details: null,
      instructions: "Be brief.",
      metadata: { topic: "greeting" },
      model: "test/scripted",
      temperature: 0,
      usage: { input_tokens_details: { cached_tokens: 3 }, output_tokens: 19 },
    });
    expect(promptOf(made)).toStartWith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi");
    expect(await fetched(made, body.id)).toEqual(body);
  });

  test("is the fold of its stream, which can be fetched too", async () => {
    for (const fields of [
      {},
      { max_output_tokens: 3 },
      { include: ["message.output_text.logprobs"], top_logprobs: 2 },
    ]) {
      const made = harness();
      const whole = await create(made, fields);
      const { final, text } = await stream(made, fields);
      expect(withoutIds(final)).toEqual(withoutIds(whole));
      expect(text).toBe(whole.output_text);
      expect(await fetched(made, final.id)).toEqual(final);
    }
  });

  test("is incomplete when a limit cut it", async () => {
    const body = await create(harness(), { max_output_tokens: 3 });
    expect(body).toMatchObject({
      status: "incomplete",
      incomplete_details: { reason: "max_output_tokens" },
      completed_at: null,
      output_text: "Hel",
      output: [{ status: "incomplete" }],
    });
    const { events } = await stream(harness(), { max_output_tokens: 3 });
    expect(events.at(-1)?.type).toBe("response.incomplete");
  });

  test("without a single character still has a message", async () => {
    const { final } = await stream(harness({ script: () => says("") }));
    expect(final.output).toMatchObject([{ type: "message", content: [{ text: "" }] }]);
  });

  test("has its thoughts in an item of their own", async () => {
    const chatTemplate = {
      source: "{% if enable_thinking %}<think></think>{% endif %}",
      render: () => "<|im_start|>assistant\n",
    };
    const made = harness({ chatTemplate, script: () => says("<think>two and two</think>Four.") });
    const { final, text, thoughts } = await stream(made);
    expect(final.output.map(({ type }) => type)).toEqual(["reasoning", "message"]);
    expect(final.output[0]?.id).toMatch(/^rs_/);
    expect([thoughts.trim(), text.trim()]).toEqual(["two and two", "Four."]);
    expect(final.output_text).toBe(text);
    expect(final.usage?.output_tokens_details.reasoning_tokens).toBeGreaterThan(0);
  });

  test("with store: false is nowhere to be found", async () => {
    const made = harness();
    const { id } = await create(made, { store: false });
    expect(await errorOf(await get(made.app, `${RESPONSES}/${id}`))).toMatchObject({
      status: 404,
      error: { code: "response_not_found" },
    });
  });

  test("that was deleted is gone", async () => {
    const made = harness();
    const { id } = await create(made);
    const deleted = await get(made.app, `${RESPONSES}/${id}`, { method: "DELETE" });
    expect(await deleted.json()).toEqual({ id, object: "response.deleted", deleted: true });
    for (const method of ["GET", "DELETE"]) {
      expect((await get(made.app, `${RESPONSES}/${id}`, { method })).status).toBe(404);
    }
    expect((await post(made.app, `${RESPONSES}/${id}/cancel`, {})).status).toBe(404);
  });
});

describe("input", () => {
  test("of items is a conversation", async () => {
    const made = harness();
    await create(made, {
      input: [
        { role: "developer", content: "Be kind." },
        {
          type: "message",
          role: "user",
          content: [
            { type: "input_text", text: "a" },
            { type: "input_text", text: "b" },
          ],
        },
        { type: "reasoning", id: "rs_1", summary: [], content: [{ type: "reasoning_text", text: "hm" }] },
        {
          type: "message",
          role: "assistant",
          content: [{ type: "output_text", text: "c", annotations: [] }],
        },
        { role: "user", content: "d" },
      ],
    });
    const roles = [...promptOf(made).matchAll(/<\|im_start\|>(\w+)\n([^<]*)/g)].map(([, role, text]) => [
      role,
      text,
    ]);
    expect(roles).toEqual([
      ["system", "Be kind."],
      ["user", "a\nb"],
      ["assistant", "c"],
      ["user", "d"],
      ["assistant", ""],
    ]);
  });

  test("goes on from an earlier response, without its instructions", async () => {
    const made = harness();
    const first = await create(made, { input: "one", instructions: "Say it loud." });
    const second = await create(made, { input: "two", previous_response_id: first.id });
    expect(second.previous_response_id).toBe(first.id);
    expect(promptOf(made)).toBe(
      `<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n${HELLO}<|im_end|>\n<|im_start|>user\ntwo<|im_end|>\n<|im_start|>assistant\n`,
    );
    // What was built on it outlives it.
    await get(made.app, `${RESPONSES}/${first.id}`, { method: "DELETE" });
    await stream(made, { input: "three", previous_response_id: second.id });
    expect(promptOf(made)).toContain("one");
    expect(promptOf(made)).toContain("three");
  });

  for (const [name, fields, param] of [
    [
      "an image",
      { input: [{ role: "user", content: [{ type: "input_image", image_url: "x" }] }] },
      "input[0].content[0].type",
    ],
    ["no role", { input: [{ content: "x" }] }, "input[0].role"],
    ["an unknown item", { input: [{ type: "computer_call" }] }, "input[0].type"],
    ["a reference", { input: [{ type: "item_reference", id: "msg_1" }] }, "input[0].type"],
    ["nothing but thoughts", { input: [{ type: "reasoning" }] }, "input"],
    ["tools", { tools: [{ type: "web_search" }] }, "tools"],
    ["a JSON format", { text: { format: { type: "json_schema", schema: {} } } }, "text"],
    ["a conversation", { conversation: "conv_1" }, "conversation"],
    ["cutting", { truncation: "auto" }, "truncation"],
    ["background without a store", { background: true, store: false }, "store"],
    ["log-probabilities without asking to include them", { top_logprobs: 3 }, "top_logprobs"],
    ["metadata that is too long", { metadata: { a: "x".repeat(513) } }, "metadata"],
    ["an unknown response", { previous_response_id: "resp_0" }, "previous_response_id"],
    ["a wrong limit", { max_output_tokens: 0 }, "max_output_tokens"],
  ] as const) {
    test(`with ${name} is refused`, async () => {
      for (const stream of [false, true]) {
        const made = harness();
        const { status, error } = await errorOf(
          await post(made.app, RESPONSES, { input: "Hi", stream, ...fields }),
        );
        expect([status, error.param]).toEqual([param === "previous_response_id" ? 404 : 400, param]);
        expect(made.engine.requests).toEqual([]);
      }
    });
  }
});

describe("failures", () => {
  const failing = (afterTokens: number) =>
    harness({
      script: () =>
        says("abcdef", {
          failure: { afterTokens, code: "engine_failed", message: "it died" },
          prefillDelayMs: afterTokens === 0 ? 0 : 40,
        }),
    });

  test("before the first token have their status, streamed too", async () => {
    for (const stream of [false, true]) {
      const { status, error } = await errorOf(await post(failing(0).app, RESPONSES, { input: "Hi", stream }));
      expect([status, error.code]).toEqual([503, "engine_failed"]);
    }
  });

  test("midway end a stream with an error and a failed response that keeps what was said", async () => {
    const made = failing(3);
    const { events, final } = await stream(made);
    expect(events.at(-2)).toMatchObject({ type: "error", code: "engine_failed", message: "it died" });
    expect(final).toMatchObject({
      status: "failed",
      output_text: "abc",
      error: { code: "server_error", message: "it died" },
    });
    expect(await fetched(made, final.id)).toEqual(final);
    const next = await errorOf(
      await post(made.app, RESPONSES, { input: "go on", previous_response_id: final.id }),
    );
    expect([next.status, next.error.param]).toEqual([400, "previous_response_id"]);
  });

  test("midway of a whole answer are an error with its status", async () => {
    const { status } = await errorOf(await post(failing(3).app, RESPONSES, { input: "Hi" }));
    expect(status).toBe(503);
  });
});

describe("in the background", () => {
  test("a response is queued at once, runs by itself and can be fetched", async () => {
    const made = harness({ script: () => says(HELLO, { stepDelayMs: 3 }) });
    const queued = await create(made, { background: true });
    expect(queued).toMatchObject({ status: "queued", output: [], usage: null, background: true });
    await eventually("it is complete", () => made.engine.running === 0 && made.lifecycle.openRequests === 0);
    expect(await fetched(made, queued.id)).toMatchObject({
      id: queued.id,
      status: "completed",
      output_text: HELLO,
    });
  });

  test("its events can be read from the start or from any number on, during and after", async () => {
    const made = harness({ script: () => says(HELLO, { stepDelayMs: 3 }) });
    const { id } = await create(made, { background: true });
    const during = await get(made.app, `${RESPONSES}/${id}?stream=true`).then((answer) =>
      readResponse(answer),
    );
    expect(during.events.map(({ type }) => type).slice(0, 3)).toEqual([
      "response.created",
      "response.queued",
      "response.in_progress",
    ]);
    expect(during.text).toBe(HELLO);
    const after = await get(made.app, `${RESPONSES}/${id}?stream=true&starting_after=4`);
    expect((await readResponse(after, 4)).events).toEqual(during.events.slice(5));
    const foreground = await create(made);
    const refused = await errorOf(await get(made.app, `${RESPONSES}/${foreground.id}?stream=true`));
    expect([refused.status, refused.error.param]).toEqual([400, "stream"]);
  });

  test("cancelling really stops the engine, at once and only once", async () => {
    const made = harness({ script: () => LONG });
    const { id } = await create(made, { background: true });
    await eventually("it runs", () => made.engine.generatedTokens > 2);
    const reading = get(made.app, `${RESPONSES}/${id}?stream=true`).then((answer) => readResponse(answer));
    for (let time = 0; time < 2; time += 1) {
      const cancelled = (await (
        await post(made.app, `${RESPONSES}/${id}/cancel`, {})
      ).json()) as ResponseBody;
      expect(cancelled.status).toBe("cancelled");
    }
    await eventually("the engine is free", () => made.engine.running === 0, 500);
    expect(made.engine.aborted).toBe(1);
    const { final } = await reading;
    expect(final.status).toBe("cancelled");
    expect(final.output_text).toMatch(/^x+$/);
    expect(await fetched(made, id)).toEqual(final);
  });

  test("deleting one that runs stops it", async () => {
    const made = harness({ script: () => LONG });
    const { id } = await create(made, { background: true });
    await eventually("it runs", () => made.engine.running === 1);
    await get(made.app, `${RESPONSES}/${id}`, { method: "DELETE" });
    await eventually("the engine is free", () => made.engine.running === 0, 500);
  });

  test("a reader that leaves does not stop it; the client of a foreground stream does", async () => {
    await withServer(
      { script: () => says("y".repeat(60), { stepDelayMs: 5 }) },
      async ({ port, url }, made) => {
        const client = await RawClient.open(port);
        client.post(RESPONSES, { input: "Hi", stream: true, background: true });
        await eventually("it streams", () => client.received.includes("output_text.delta"));
        const id = /resp_[0-9a-f]{32}/.exec(client.received)![0];
        client.leave();
        await eventually("it is complete", () => made.engine.running === 0);
        expect(made.engine.aborted).toBe(0);
        expect(await (await fetch(`${url}${RESPONSES}/${id}`)).json()).toMatchObject({ status: "completed" });

        const other = await RawClient.open(port);
        other.post(RESPONSES, { input: "Hi", stream: true });
        await eventually("it streams", () => other.received.includes("output_text.delta"));
        const stopped = /resp_[0-9a-f]{32}/.exec(other.received)![0];
        other.leave();
        await eventually("the engine is free", () => made.engine.running === 0, 500);
        expect(made.engine.aborted).toBe(1);
        expect(await (await fetch(`${url}${RESPONSES}/${stopped}`)).json()).toMatchObject({
          status: "cancelled",
        });
        expect(made.log).toEqual([]);
      },
    );
  });

  test("only so many run at the same time", async () => {
    const made = harness({ script: () => LONG });
    const ids: string[] = [];
    for (let index = 0; index < 64; index += 1) ids.push((await create(made, { background: true })).id);
    const { status } = await errorOf(await post(made.app, RESPONSES, { input: "Hi", background: true }));
    expect(status).toBe(429);
    for (const id of ids) await post(made.app, `${RESPONSES}/${id}/cancel`, {});
    await eventually("the engine is free", () => made.engine.running === 0);
  });

  test("a stopping server waits for one, then ends it and says so", async () => {
    await withServer({ script: () => LONG }, async (server, made) => {
      const send = () =>
        fetch(server.url + RESPONSES, {
          method: "POST",
          body: JSON.stringify({ input: "Hi", background: true }),
        });
      expect(((await (await send()).json()) as ResponseBody).status).toBe("queued");
      await eventually("it runs", () => made.engine.running === 1);
      expect(await server.stop(50)).toEqual({ forced: true });
      expect(made.engine.running).toBe(0);
    });
  });
});
