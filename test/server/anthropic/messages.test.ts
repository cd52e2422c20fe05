import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { Message } from "../../../src/server/anthropic/shapes.ts";
import type { ChatMessage, ChatTemplate } from "../../../src/text/types.ts";
import { eventually, type HarnessOptions, harness, post, says, TEMPLATE, withServer } from "../harness.ts";
import { RawClient } from "../raw-client.ts";
import { readMessage } from "./message-log.ts";

const MESSAGES = "/v1/messages";
const COUNT = "/v1/messages/count_tokens";
const HELLO = "Hello world, caf\u00e9 \u{1f600}!";
const user = (content: unknown = "Hi") => ({ role: "user", content });
const minimal = { max_tokens: 100, messages: [user()] };

/** A template that marks thoughts and can be told to think; what it was given goes to `seen`. */
function thinkingTemplate(seen: unknown[] = []): ChatTemplate {
  return {
    source: "<think></think> enable_thinking reasoning_effort",
    render: (input) => {
      seen.push(input);
      return TEMPLATE.render(input);
    },
  };
}

async function ask(options: HarnessOptions, fields: Record<string, unknown> = {}): Promise<Message> {
  const response = await post(harness(options).app, MESSAGES, { ...minimal, ...fields });
  const text = await response.text();
  expect(`${response.status} ${text}`).toStartWith("200 ");
  return JSON.parse(text) as Message;
}

describe("a message", () => {
  test("has Anthropic's shape, exactly", async () => {
    const made = harness({ script: () => says(HELLO, { cachedTokens: 3 }) });
    const response = await post(made.app, MESSAGES, { ...minimal, model: "test/scripted" });
    expect(response.headers.get("request-id")).toMatch(/^req_/);
    const message = (await response.json()) as Message;
    const prompt = TEMPLATE.render({
      messages: minimal.messages as ChatMessage[],
      addGenerationPrompt: true,
    });
    const tokens = (text: string) => made.tokenizer.encode(text, { addSpecialTokens: true }).length;
    expect(message.id).toMatch(/^msg_[0-9a-f]{32}$/);
    expect({ ...message, id: "" }).toEqual({
      id: "",
      type: "message",
      role: "assistant",
      model: "test/scripted",
      content: [{ type: "text", text: HELLO, citations: null }],
      stop_reason: "end_turn",
      stop_sequence: null,
      stop_details: null,
      container: null,
      diagnostics: null,
      usage: {
        input_tokens: tokens(prompt) - 3,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: 3,
        output_tokens: tokens(HELLO),
        output_tokens_details: { thinking_tokens: 0 },
        server_tool_use: null,
        cache_creation: null,
        inference_geo: null,
        service_tier: "standard",
        speed: null,
      },
    });
  });

  test("streams its events in order, a ping among them", async () => {
    const { app } = harness({ script: () => says("ab") });
    const { events } = await readMessage(await post(app, MESSAGES, { ...minimal, stream: true }));
    expect(events.map(({ type }) => type)).toEqual([
      "message_start",
      "content_block_start",
      "ping",
      "content_block_delta",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop",
    ]);
    expect(events.at(-2)).toMatchObject({
      delta: { stop_reason: "end_turn", stop_sequence: null },
      usage: { output_tokens: 2 },
    });
  });

  test("tells the stop sequence that ended it", async () => {
    const script = () => says("one STOP two");
    expect(await ask({ script }, { stop_sequences: ["never", "STOP", "OP"] })).toMatchObject({
      content: [{ text: "one " }],
      stop_reason: "stop_sequence",
      stop_sequence: "STOP",
    });
    expect(await ask({ script }, { stop_sequences: ["never"] })).toMatchObject({
      stop_reason: "end_turn",
      stop_sequence: null,
    });
    expect(await ask({ script }, { stop_sequences: null })).toMatchObject({ stop_reason: "end_turn" });
  });

  test("tells whether its limit or the context ended it", async () => {
    const script = () => says("x".repeat(200));
    expect(await ask({ script }, { max_tokens: 5 })).toMatchObject({
      content: [{ text: "xxxxx" }],
      stop_reason: "max_tokens",
      usage: { output_tokens: 5 },
    });
    expect(await ask({ script, info: { contextLength: 60 } })).toMatchObject({
      stop_reason: "model_context_window_exceeded",
    });
  });

  test("of nothing has no block", async () => {
    expect(await ask({ script: () => says("") })).toMatchObject({ content: [], stop_reason: "end_turn" });
    expect(await ask({}, { max_tokens: 0 })).toMatchObject({ content: [], stop_reason: "max_tokens" });
  });

  test("asks the engine for what its fields say", async () => {
    const { app, engine } = harness();
    await post(app, MESSAGES, {
      ...minimal,
      max_tokens: 7,
      temperature: 0.5,
      top_p: 0.25,
      top_k: 4,
      seed: 9,
      min_p: 0.125,
      cache_salt: "s",
    });
    expect(engine.requests[0]).toMatchObject({
      maxTokens: 7,
      sampling: { temperature: 0.5, topP: 0.25, topK: 4, seed: 9n, minP: 0.125 },
      cacheSalt: "s",
    });
  });
});

describe("a message with thoughts", () => {
  const options = (text: string): HarnessOptions => ({
    chatTemplate: thinkingTemplate(),
    script: () => says(text),
  });

  test("has them in blocks of their own", async () => {
    const message = await ask(options("<think>\nhm\n</think>\n\nyes"));
    expect(message.content).toEqual([
      { type: "thinking", thinking: "hm", signature: "" },
      { type: "text", text: "yes", citations: null },
    ]);
    expect(message.usage.output_tokens_details.thinking_tokens).toBeGreaterThan(2);
  });

  test("cut while it thinks has no other block", async () => {
    expect(await ask(options("<think>hm hm hm</think>x"), { max_tokens: 10 })).toMatchObject({
      content: [{ type: "thinking", thinking: "hm" }],
      stop_reason: "max_tokens",
    });
  });

  test("shows that there were thoughts when they are not to be told", async () => {
    const thinking = { type: "adaptive", display: "omitted" };
    expect((await ask(options("<think>hm</think>yes"), { thinking })).content).toEqual([
      { type: "thinking", thinking: "", signature: "" },
      { type: "text", text: "yes", citations: null },
    ]);
  });

  test("keeps blocks in the order they came, interleaved too", async () => {
    const specials = ["[THINK]", "[/THINK]"];
    const message = await ask({
      specials,
      chatTemplate: { ...TEMPLATE, source: "[THINK][/THINK]" },
      script: () => says("a[THINK]b[/THINK]c[THINK]d[/THINK]", {}, specials),
    });
    const texts = message.content.map((block) =>
      block.type === "text" ? block.text : `(${block.thinking})`,
    );
    expect(texts).toEqual(["a", "(b)", "c", "(d)"]);
  });
});

test("the stream, put together, is the whole message", async () => {
  const words = [
    "a",
    "\u00e9",
    "\u{1f600}",
    "STOP",
    "ST",
    "<think>",
    "</think>",
    "[THINK]",
    "[/THINK]",
    "\n\n",
    " ",
  ];
  const specials = ["[THINK]", "[/THINK]"];
  const property = fc.asyncProperty(
    fc.array(fc.constantFrom(...words), { maxLength: 16 }),
    fc.integer({ min: 1, max: 5 }),
    fc.integer({ min: 0, max: 30 }),
    fc.constantFrom("<think></think>", "[THINK][/THINK]", "plain"),
    async (said, tokensPerStep, maxTokens, source) => {
      const { app } = harness({
        specials,
        chatTemplate: { ...TEMPLATE, source },
        script: () => says(said.join(""), { tokensPerStep, cachedTokens: 1 }, specials),
      });
      const body = { ...minimal, max_tokens: maxTokens, stop_sequences: ["STOP", "\u{1f600}a"] };
      const whole = (await (await post(app, MESSAGES, body)).json()) as Message;
      const { events } = await readMessage(await post(app, MESSAGES, { ...body, stream: true }));
      const put: Message = { ...whole, content: [] };
      for (const event of events) {
        if (event.type === "content_block_start") put.content.push({ ...event.content_block });
        if (event.type === "content_block_delta") {
          const block = put.content[event.index]!;
          if (block.type === "text" && event.delta.type === "text_delta") block.text += event.delta.text;
          if (block.type === "thinking" && event.delta.type === "thinking_delta")
            block.thinking += event.delta.thinking;
        }
        if (event.type === "message_delta") {
          expect(event.delta).toMatchObject({
            stop_reason: whole.stop_reason!,
            stop_sequence: whole.stop_sequence,
          });
          expect(whole.usage).toMatchObject(event.usage);
        }
      }
      expect(put.content).toEqual(whole.content);
    },
  );
  await fc.assert(property, { numRuns: 80, seed: 41 });
});

describe("the prompt of a message", () => {
  const seenBy = async (body: Record<string, unknown>, path = MESSAGES) => {
    const seen: { messages: ChatMessage[]; variables?: unknown; addGenerationPrompt: boolean }[] = [];
    const made = harness({ chatTemplate: thinkingTemplate(seen) });
    const response = await post(made.app, path, { ...minimal, ...body });
    expect(`${response.status} ${await response.text()}`).toStartWith("200 ");
    const prompt = made.engine.requests[0]?.promptTokens;
    const text = prompt && made.tokenizer.decode([...prompt], { skipSpecialTokens: false });
    return { ...seen[0]!, warning: response.headers.get("x-mistral-warning"), text };
  };
  const text = (value: string) => ({ type: "text", text: value });

  test("has the system text in front, as a string or as blocks", async () => {
    for (const system of ["Be brief.", [text("Be brief.")]]) {
      expect((await seenBy({ system })).messages).toEqual([
        { role: "system", content: "Be brief." },
        { role: "user", content: "Hi" },
      ]);
    }
    expect((await seenBy({ system: null })).messages).toHaveLength(1);
    expect(
      (await seenBy({ system: [text("A"), { ...text("B"), cache_control: { type: "ephemeral" } }] }))
        .messages[0],
    ).toEqual({ role: "system", content: "A\nB" });
  });

  test("joins blocks, and neighbours of one role", async () => {
    const messages = [
      user("one"),
      user([text("two"), text("three")]),
      { role: "assistant", content: "ok" },
      user(),
    ];
    expect((await seenBy({ messages })).messages).toEqual([
      { role: "user", content: "one\ntwo\nthree" },
      { role: "assistant", content: "ok" },
      { role: "user", content: "Hi" },
    ]);
  });

  test("hands thoughts of earlier turns to the template", async () => {
    const content = [
      { type: "thinking", thinking: "hm", signature: "x" },
      { type: "redacted_thinking", data: "?" },
      text("yes"),
    ];
    expect(
      (await seenBy({ messages: [user(), { role: "assistant", content }, user("So?")] })).messages[1],
    ).toEqual({
      role: "assistant",
      content: "yes",
      reasoning_content: "hm",
    });
  });

  test("stays open when the assistant has begun the answer", async () => {
    const messages = [user(), { role: "assistant", content: "The answer is (" }];
    const { text: prompt } = await seenBy({ messages });
    expect(prompt).toBe("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nThe answer is (");
  });

  test("carries the wish to think", async () => {
    const variables = async (fields: Record<string, unknown>) => (await seenBy(fields)).variables;
    expect(await variables({})).toEqual({});
    expect(await variables({ thinking: { type: "enabled", budget_tokens: 2_000 } })).toEqual({
      enable_thinking: true,
    });
    expect(await variables({ thinking: { type: "adaptive" }, output_config: { effort: "low" } })).toEqual({
      enable_thinking: true,
      reasoning_effort: "low",
    });
    expect(await variables({ thinking: { type: "disabled" }, output_config: { effort: "high" } })).toEqual({
      enable_thinking: false,
    });
    expect(await variables({ chat_template_kwargs: { source: 1 } })).toEqual({ source: 1 });
  });

  test("is counted as it would be sent", async () => {
    const { app, engine } = harness();
    const body = { system: "Be brief.", messages: [user("How many?")] };
    const { input_tokens } = (await (await post(app, COUNT, body)).json()) as { input_tokens: number };
    await post(app, MESSAGES, { ...minimal, ...body });
    expect(input_tokens).toBe(engine.requests[0]!.promptTokens.length);
  });

  test("tells what of the request can do nothing", async () => {
    const { app } = harness();
    const warning = async (fields: Record<string, unknown>) =>
      (await post(app, MESSAGES, { ...minimal, ...fields })).headers.get("x-mistral-warning");
    expect(await warning({})).toBeNull();
    expect(await warning({ metadata: { user_id: "u" }, made_up: 1 })).toBe(
      "parameter 'metadata' has no effect here; unknown parameter 'made_up' is ignored",
    );
    const thinking = { type: "enabled", budget_tokens: 1_024 };
    expect(await warning({ thinking, output_config: { effort: "max" } })).toBe(
      "parameter 'thinking' has no effect with this model's chat template; parameter 'output_config.effort' has no effect with this model's chat template; parameter 'thinking.budget_tokens' has no effect here",
    );
  });
});

test("silence is filled with pings", async () => {
  const script = () => says("abc", { prefillDelayMs: 300 });
  await withServer({ script, settings: { keepAliveIntervalMs: 60 } }, async ({ port }) => {
    const client = await RawClient.open(port);
    client.post(MESSAGES, { ...minimal, stream: true });
    await eventually("the message ends", () => client.received.includes("message_stop"));
    const pings = client.received.split('event: ping\ndata: {"type":"ping"}\n\n').length - 1;
    expect(pings).toBeGreaterThanOrEqual(4);
    expect(client.received.indexOf("message_start")).toBeLessThan(client.received.indexOf("event: ping"));
    client.leave();
  });
});
