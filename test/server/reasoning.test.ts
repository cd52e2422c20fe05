/** Thoughts and answers, from the request's wish to the stream's deltas. The splitter itself: test/text/reasoning. */

import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { chatTemplateFrom } from "../../src/text/chat-template.ts";
import type { ChatTemplate } from "../../src/text/types.ts";
import { FIXTURES } from "../text/fixtures.ts";
import { CHAT, chat, errorOf, harness, minimalBody, post, readEvents, says, TEMPLATE } from "./harness.ts";

interface TemplateOptions {
  /** Stands in the template's source, which tells how thoughts are marked and what can be chosen. */
  readonly source: string;
  /** What the template puts at the end of the prompt. */
  readonly opening?: string;
}

function template({ source, opening = "" }: TemplateOptions, seen: unknown[] = []): ChatTemplate {
  return {
    source,
    render: (input) => {
      seen.push(input.variables);
      return TEMPLATE.render(input) + opening;
    },
  };
}

const THINK = { source: "<think></think> enable_thinking" };

function thinking(text: string, options: TemplateOptions = THINK, tokensPerStep = 1) {
  return harness({ chatTemplate: template(options), script: () => says(text, { tokensPerStep }) });
}

async function streamed(made: ReturnType<typeof harness>, fields: Record<string, unknown> = {}) {
  const body = { ...minimalBody(CHAT), stream: true, stream_options: { include_usage: true }, ...fields };
  const { chunks } = await readEvents(await post(made.app, CHAT, body));
  const deltas = chunks.flatMap(({ choices }) => choices.map(({ delta }) => delta));
  return {
    chunks,
    reasoning: deltas.map(({ reasoning_content }) => reasoning_content ?? "").join(""),
    content: deltas.map(({ content }) => content ?? "").join(""),
  };
}

describe("a chat answer with thoughts", () => {
  test("tells them apart, whole and streamed, whatever the steps", async () => {
    for (const tokensPerStep of [1, 2, 3, 7, 100]) {
      const made = thinking("<think>\nhm, \u{1f600}\n</think>\n\nYes <b>.", THINK, tokensPerStep);
      const { message } = (await chat(made.app)).choices[0]!;
      expect(message).toEqual({
        role: "assistant",
        content: "Yes <b>.",
        refusal: null,
        reasoning_content: "hm, \u{1f600}",
      });
      expect(await streamed(made)).toMatchObject({ reasoning: "hm, \u{1f600}", content: "Yes <b>." });
    }
  });

  test("sends each part as it comes, thoughts before the answer", async () => {
    const { chunks } = await streamed(thinking("<think>ab</think>cd"));
    const told = chunks.flatMap(({ choices }) => choices.map(({ delta }) => JSON.stringify(delta)));
    expect(told).toEqual([
      '{"role":"assistant","content":"","refusal":null}',
      '{"reasoning_content":"a"}',
      '{"reasoning_content":"b"}',
      '{"content":"c"}',
      '{"content":"d"}',
      "{}",
    ]);
  });

  test("begins inside a thought that the prompt has opened", async () => {
    const options = { ...THINK, opening: "<think>\n" };
    const { message } = (await chat(thinking("hm</think>yes", options).app)).choices[0]!;
    expect(message).toMatchObject({ content: "yes", reasoning_content: "hm" });
    const never = (await chat(thinking("hm", options).app)).choices[0]!;
    expect(never.message).toMatchObject({ content: "", reasoning_content: "hm" });
  });

  test("has none after a prompt that has closed them", async () => {
    const options = { ...THINK, opening: "<think>\n\n</think>\n\n" };
    const { message } = (await chat(thinking("yes", options).app)).choices[0]!;
    expect(message).toEqual({ role: "assistant", content: "yes", refusal: null });
  });

  test("sees markers that are special tokens, which no text ever shows", async () => {
    const source = "[THINK][/THINK]";
    const made = harness({
      chatTemplate: template({ source }),
      specials: ["[THINK]", "[/THINK]"],
      script: () => says("[THINK]hm[/THINK]yes", {}, ["[THINK]", "[/THINK]"]),
    });
    expect((await chat(made.app)).choices[0]!.message).toMatchObject({
      content: "yes",
      reasoning_content: "hm",
    });
    const plain = harness({
      specials: ["[THINK]", "[/THINK]"],
      script: () => says("[THINK]hm[/THINK]yes", {}, ["[THINK]", "[/THINK]"]),
    });
    expect((await chat(plain.app)).choices[0]!.message.content).toBe("hmyes");
  });

  test("reads Harmony's channels", async () => {
    const specials = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];
    const text = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>yes";
    const made = harness({
      chatTemplate: template({ source: "<|channel|>", opening: "<|start|>assistant" }),
      specials,
      script: () => says(text, {}, specials),
    });
    expect((await chat(made.app)).choices[0]!.message).toMatchObject({
      content: "yes",
      reasoning_content: "hm",
    });
    expect(await streamed(made)).toMatchObject({ reasoning: "hm", content: "yes" });
  });

  test("is split with a real template, which closes thoughts itself when told not to think", async () => {
    const source = readFileSync(join(FIXTURES, "templates/qwen3.jinja"), "utf8");
    const chatTemplate = chatTemplateFrom(source, { bosText: "", eosText: "", unkText: "" });
    let prompt = "";
    const made = harness({
      chatTemplate,
      script: (_, given) => {
        prompt = given;
        return says(given.endsWith("assistant\n") ? "<think>\nhm\n</think>\n\nyes" : "yes");
      },
    });
    const answer = async (fields: Record<string, unknown>) =>
      (await chat(made.app, fields)).choices[0]!.message;
    expect(await answer({})).toMatchObject({ content: "yes", reasoning_content: "hm" });
    expect(await answer({ enable_thinking: true })).toMatchObject({ reasoning_content: "hm" });
    for (const fields of [{ enable_thinking: false }, { reasoning_effort: "none" }]) {
      expect(await answer(fields)).toEqual({ role: "assistant", content: "yes", refusal: null });
      expect(prompt).toEndWith("<think>\n\n</think>\n\n");
    }
  });

  test("leaves a text alone whose template knows no thoughts", async () => {
    const made = thinking("<think>hm</think>yes", { source: "<|im_start|>" });
    expect((await chat(made.app)).choices[0]!.message.content).toBe("<think>hm</think>yes");
  });

  test("reports the log-probabilities of what it says, and only of that", async () => {
    for (const tokensPerStep of [1, 4, 100]) {
      const made = thinking("<think>hm</think>\nY\u{1f600}<", THINK, tokensPerStep);
      const { logprobs } = (await chat(made.app, { logprobs: true })).choices[0]!;
      expect(Buffer.from(logprobs!.content.flatMap(({ bytes }) => bytes)).toString()).toBe("Y\u{1f600}<");
      const { chunks } = await streamed(made, { logprobs: true });
      const told = chunks.flatMap(({ choices }) =>
        choices.flatMap(({ logprobs }) => logprobs?.content ?? []),
      );
      expect(told).toEqual(logprobs!.content);
    }
  });

  test("counts the tokens of thoughts among those of the answer", async () => {
    const { usage } = await chat(thinking("<think>hmm</think>yes").app);
    const characters = "<think>hmm</think>yes".length;
    expect(usage.completion_tokens).toBe(characters);
    expect(usage.completion_tokens_details.reasoning_tokens).toBe("hmm</think>".length + 1);
    expect((await chat(thinking("yes").app)).usage.completion_tokens_details.reasoning_tokens).toBe(0);
  });

  test("ends at a stop string in either part, and shows nothing of it", async () => {
    const made = thinking("<think>one STOP two</think>three");
    const { message, finish_reason } = (await chat(made.app, { stop: "STOP" })).choices[0]!;
    expect([message.reasoning_content, message.content, finish_reason]).toEqual(["one", "", "stop"]);
    const later = (await chat(made.app, { stop: "re" })).choices[0]!;
    expect([later.message.reasoning_content, later.message.content]).toEqual(["one STOP two", "th"]);
  });

  test("cut inside a marker keeps what was written", async () => {
    const { message, finish_reason } = (await chat(thinking("<think>a</think>b").app, { max_tokens: 12 }))
      .choices[0]!;
    expect([message.reasoning_content, message.content, finish_reason]).toEqual(["a</th", "", "length"]);
  });
});

describe("the wish to think", () => {
  const variables = async (
    fields: Record<string, unknown>,
    source = "enable_thinking reasoning_effort a",
  ) => {
    const seen: unknown[] = [];
    const made = harness({ chatTemplate: template({ source }, seen) });
    const response = await post(made.app, CHAT, { ...minimalBody(CHAT), ...fields });
    expect(response.status).toBe(200);
    return { seen: seen[0], warning: response.headers.get("x-mistral-warning") };
  };

  test("reaches the template, and so does everything else it is given", async () => {
    expect(await variables({ enable_thinking: false, chat_template_kwargs: { a: [1] } })).toEqual({
      seen: { a: [1], enable_thinking: false },
      warning: null,
    });
    expect((await variables({ reasoning_effort: "low" })).seen).toEqual({ reasoning_effort: "low" });
    expect((await variables({ reasoning_effort: "none" })).seen).toEqual({ enable_thinking: false });
    expect((await variables({ enable_thinking: null, reasoning_effort: null })).seen).toEqual({});
  });

  test("uses the name that the template has for it", async () => {
    expect((await variables({ enable_thinking: true }, "{% if thinking %}")).seen).toEqual({
      enable_thinking: true,
      thinking: true,
    });
    expect(await variables({ reasoning_effort: "high" }, "enable_thinking")).toEqual({
      seen: { enable_thinking: true, reasoning_effort: "high" },
      warning: null,
    });
  });

  test("is told to have no effect where nothing hears it", async () => {
    const fields = { enable_thinking: true, reasoning_effort: "low", chat_template_kwargs: { b: 1 } };
    const { warning } = await variables(fields, "plain");
    expect(warning).toBe(
      ["chat_template_kwargs.b", "enable_thinking", "reasoning_effort"]
        .map((field) => `parameter '${field}' has no effect with this model's chat template`)
        .join("; "),
    );
  });

  test("must not contradict itself", async () => {
    for (const fields of [
      { enable_thinking: true, reasoning_effort: "none" },
      { enable_thinking: false, reasoning_effort: "low" },
    ]) {
      const { status, error } = await errorOf(
        await post(harness().app, CHAT, { ...minimalBody(CHAT), ...fields }),
      );
      expect([status, error.param]).toEqual([400, "reasoning_effort"]);
      expect(error.message).toContain("contradict");
    }
    const { error } = await errorOf(
      await post(harness().app, CHAT, { ...minimalBody(CHAT), reasoning_effort: "lots" }),
    );
    expect(error.message).toContain("minimal");
  });

  test("a thought of an earlier turn reaches the template under either name", async () => {
    const seen: unknown[] = [];
    const chatTemplate: ChatTemplate = {
      source: "",
      render: ({ messages }) => {
        seen.push(messages[0]);
        return "prompt";
      },
    };
    for (const field of ["reasoning", "reasoning_content"]) {
      const messages = [{ role: "assistant", content: "a", [field]: "hm" }];
      await chat(harness({ chatTemplate }).app, { messages });
    }
    const expected = { role: "assistant", content: "a", reasoning_content: "hm" };
    expect(seen).toEqual([expected, expected]);
  });
});
