import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../src/errors.ts";
import {
  CHAT,
  COMPLETIONS,
  errorOf,
  type HarnessOptions,
  harness,
  minimalBody,
  post,
  readEvents,
  says,
} from "./harness.ts";

interface Refusal {
  readonly name: string;
  readonly options?: HarnessOptions;
  readonly fields?: Record<string, unknown>;
  readonly status: number;
  readonly code: string;
  readonly param?: string | null;
  /** What the message must hold, besides being a sentence. */
  readonly holds: readonly string[];
  readonly only?: string;
  readonly prepare?: (made: ReturnType<typeof harness>) => void;
}

const fails = (code: ErrorCode, message: string): HarnessOptions => ({
  script: () => says("abc", { failure: { afterTokens: 0, code, message } }),
});

const invalid = (name: string, fields: Record<string, unknown>, ...holds: string[]): Refusal => ({
  name,
  fields,
  status: 400,
  code: "invalid_value",
  param: name.split(" ")[0]!,
  holds,
});
const unsupported = (param: string, value: unknown, only?: string): Refusal => ({
  name: param,
  fields: { [param]: value },
  status: 400,
  code: "unsupported_parameter",
  param,
  holds: [`'${param}'`],
  ...(only === undefined ? {} : { only }),
});

const REFUSALS: readonly Refusal[] = [
  invalid("temperature above the range", { temperature: 2.5 }, "2.5", "from 0 to 2"),
  invalid("temperature below the range", { temperature: -0.1 }, "-0.1"),
  invalid("temperature as text", { temperature: "0.5" }, '"0.5"'),
  invalid("top_p out of range", { top_p: 1.01 }, "1.01"),
  invalid("top_k not whole", { top_k: 1.5 }, "1.5", "integer"),
  invalid("min_p out of range", { min_p: 2 }, "2"),
  invalid("max_tokens negative", { max_tokens: -1 }, "-1"),
  invalid("max_tokens not whole", { max_tokens: 1.5 }, "1.5"),
  invalid("n of none", { n: 0 }, "from 1 to 128"),
  invalid("n above the limit", { n: 129 }, "129"),
  invalid("seed not whole", { seed: 0.5 }, "0.5"),
  invalid("stop of nothing", { stop: "" }, '""'),
  invalid("stop of too many", { stop: Array.from({ length: 17 }, String) }, "at most 16", "an array of 17"),
  invalid("frequency_penalty out of range", { frequency_penalty: 3 }, "from -2 to 2"),
  invalid("presence_penalty out of range", { presence_penalty: -3 }, "-3"),
  invalid("repetition_penalty of zero", { repetition_penalty: 0 }, "above 0"),
  invalid("logit_bias out of range", { logit_bias: { "1": 101 } }, "-100 to 100"),
  invalid("logit_bias of no token", { logit_bias: { abc: 1 } }, "abc"),
  invalid("logit_bias beyond the vocabulary", { logit_bias: { "9999": 1 } }, "9999", "265"),
  invalid("stream as text", { stream: "yes" }, '"yes"'),
  invalid("ignore_eos as a number", { ignore_eos: 1 }, "true or false"),
  unsupported("grammar", { type: "regex", value: "a" }),
  unsupported("tools", [{ type: "function", function: { name: "f" } }]),
  invalid("dry_multiplier below zero", { dry_multiplier: -0.1 }, "from 0 (off) to 100"),
  invalid("dry_base of zero", { dry_base: 0 }, "above 0"),
  invalid("dry_allowed_length not whole", { dry_allowed_length: 1.5 }, "1.5"),
  invalid("dry_sequence_breakers of nothing", { dry_sequence_breakers: [""] }, "at most 64"),
  invalid("truncate_sequence as text", { truncate_sequence: "yes" }, "true or false"),
  invalid("cache_salt as a number", { cache_salt: 5 }, "256 characters"),
  invalid("service_tier of no name", { service_tier: "first class" }, "priority or flex"),
  unsupported("adapter", "a"),
  unsupported("response_format", { type: "json_object" }, CHAT),
  unsupported("tool_choice", "required", CHAT),
  unsupported("functions", [{}], CHAT),
  unsupported("function_call", { name: "f" }, CHAT),
  unsupported("audio", {}, CHAT),
  unsupported("modalities", ["audio"], CHAT),
  unsupported("web_search_options", {}, CHAT),
  unsupported("suffix", "end", COMPLETIONS),
  { ...invalid("best_of below n", { n: 3, best_of: 2 }, "best_of (2)", "n (3)"), only: COMPLETIONS },
  {
    ...invalid("best_of times prompts", { prompt: Array(20).fill("a"), best_of: 10, stream: false }, "200"),
    param: "best_of",
    only: COMPLETIONS,
  },
  { ...invalid("max_tokens", { max_tokens: 5, max_completion_tokens: 6 }, "5", "6"), only: CHAT },
  { ...invalid("top_logprobs without logprobs", { top_logprobs: 2 }, "logprobs is true"), only: CHAT },
  {
    ...invalid("top_logprobs above the limit", { logprobs: true, top_logprobs: 21 }, "21", "0 to 20"),
    only: CHAT,
  },
  { ...invalid("logprobs as a number", { logprobs: 3 }, "3"), only: CHAT },
  { ...invalid("messages of none", { messages: [] }, "1 to 20000"), only: CHAT },
  { ...invalid("messages as text", { messages: "Hi" }, '"Hi"'), only: CHAT },
  {
    ...invalid("messages[0].role", { messages: [{ role: "robot", content: "x" }] }, '"robot"', "assistant"),
    only: CHAT,
  },
  {
    ...invalid("messages[1].content", { messages: [user(), { role: "user", content: 5 }] }, "got 5"),
    only: CHAT,
  },
  {
    ...invalid("messages[0].content", { messages: [{ role: "user", content: null }] }, "assistant"),
    only: CHAT,
  },
  {
    ...invalid(
      "messages[0].content[1].type",
      { messages: [user([text("a"), { type: "image_url", image_url: {} }])] },
      "image_url",
    ),
    only: CHAT,
  },
  { ...invalid("messages[0].content[0].text", { messages: [user([{ type: "text" }])] }), only: CHAT },
  {
    name: "no chat template",
    options: { chatTemplate: undefined },
    status: 400,
    code: "invalid_value",
    param: "model",
    holds: ["no chat template", "/v1/completions"],
    only: CHAT,
  },
  { ...invalid("max_tokens of none without echo", { max_tokens: 0 }, "echo"), only: COMPLETIONS },
  { ...invalid("logprobs as true", { logprobs: true }, "from 0 to 20"), only: COMPLETIONS },
  { ...invalid("prompt of nothing", { prompt: [] }, "token ids"), only: COMPLETIONS },
  { ...invalid("prompt of an unknown token", { prompt: [65, 266] }, "266", "265"), only: COMPLETIONS },
  { ...invalid("prompt of a mixture", { prompt: ["a", 5] }), only: COMPLETIONS },
  {
    ...invalid("n times prompts", { prompt: Array(20).fill("a"), n: 10 }, "200", "128"),
    param: "n",
    only: COMPLETIONS,
  },
  {
    name: "missing messages",
    fields: { messages: undefined },
    status: 400,
    code: "missing_required_parameter",
    param: "messages",
    holds: ["'messages'"],
    only: CHAT,
  },
  {
    name: "missing prompt",
    fields: { prompt: undefined },
    status: 400,
    code: "missing_required_parameter",
    param: "prompt",
    holds: ["'prompt'"],
    only: COMPLETIONS,
  },
  {
    name: "unknown model",
    fields: { model: "gpt-9" },
    status: 404,
    code: "model_not_found",
    param: "model",
    holds: ["gpt-9", "test/scripted"],
  },
  {
    name: "prompt longer than the context",
    options: { info: { contextLength: 2 } },
    fields: { prompt: "far too long", messages: [user("far too long")] },
    status: 400,
    code: "context_length_exceeded",
    holds: ["holds 2"],
  },
  {
    name: "prompt longer than the cache",
    options: { info: { blockSize: 2, blockCount: 2 } },
    fields: { prompt: "far too long" },
    status: 400,
    code: "context_length_exceeded",
    holds: ["holds 2"],
  },
  {
    name: "engine refuses the length",
    options: fails("context_length_exceeded", "9 tokens, 8 fit"),
    status: 400,
    code: "context_length_exceeded",
    holds: ["9 tokens, 8 fit"],
  },
  {
    name: "engine refuses the request",
    options: fails("invalid_request", "no such thing"),
    status: 400,
    code: "invalid_value",
    holds: ["no such thing"],
  },
  {
    name: "engine full",
    options: fails("overloaded", "queue full"),
    status: 429,
    code: "overloaded",
    holds: ["queue full"],
  },
  {
    name: "engine dies",
    options: fails("engine_failed", "exit 139"),
    status: 503,
    code: "engine_failed",
    holds: ["exit 139"],
  },
  {
    name: "engine drains",
    options: fails("shutting_down", "bye"),
    status: 503,
    code: "shutting_down",
    holds: ["bye"],
  },
  {
    name: "kernel fails",
    options: fails("backend", "illegal address"),
    status: 500,
    code: "backend",
    holds: ["illegal"],
  },
  {
    name: "engine out of memory",
    options: fails("insufficient_memory", "no room"),
    status: 500,
    code: "insufficient_memory",
    holds: ["no room"],
  },
  {
    name: "engine vanishes",
    options: { script: () => says("abc", { vanishAfterTokens: 0 }) },
    status: 503,
    code: "engine_failed",
    holds: ["without a result"],
  },
  {
    name: "a bug",
    options: { script: () => says("abc", { throws: new TypeError("secret detail") }) },
    status: 500,
    code: "internal_error",
    holds: ["log"],
  },
  {
    name: "engine starting",
    prepare: ({ engine }) => {
      engine.state = "starting";
    },
    status: 503,
    code: "engine_failed",
    holds: ["starting"],
  },
  {
    name: "engine given up",
    prepare: ({ engine }) => {
      engine.state = "failed";
    },
    status: 503,
    code: "engine_failed",
    holds: ["failed"],
  },
  {
    name: "server draining",
    prepare: ({ lifecycle }) => lifecycle.drain(),
    status: 503,
    code: "shutting_down",
    holds: ["shutting down"],
  },
];

function user(content: unknown = "Hi") {
  return { role: "user", content };
}

function text(value: string) {
  return { type: "text", text: value };
}

for (const path of [CHAT, COMPLETIONS]) {
  for (const stream of [false, true]) {
    describe(`${path} ${stream ? "streamed" : "whole"} refuses`, () => {
      for (const refusal of REFUSALS) {
        if (refusal.only !== undefined && refusal.only !== path) continue;
        test(refusal.name, async () => {
          const made = harness(refusal.options);
          refusal.prepare?.(made);
          const response = await post(made.app, path, { ...minimalBody(path), stream, ...refusal.fields });
          const retryable = [429, 503].includes(refusal.status);
          expect(response.headers.get("retry-after")).toBe(retryable ? "1" : null);
          const { status, error } = await errorOf(response);
          expect(`${status} ${error.code}: ${error.message}`).toStartWith(
            `${refusal.status} ${refusal.code}: `,
          );
          if (refusal.param !== undefined) expect(error.param).toBe(refusal.param);
          const type =
            status === 429 ? "rate_limit_error" : status >= 500 ? "server_error" : "invalid_request_error";
          expect(error.type).toBe(type);
          for (const part of refusal.holds) expect(error.message).toContain(part);
          expect(error.message).not.toContain("secret");
          expect(made.log.filter((line) => line.startsWith("error"))).toHaveLength(status === 500 ? 1 : 0);
          expect(made.engine.running).toBe(0);
          expect(made.lifecycle.openRequests).toBe(0);
        });
      }
    });
  }
}

describe("a failure after the first token", () => {
  const cases: readonly { code: ErrorCode; type: string }[] = [
    { code: "engine_failed", type: "server_error" },
    { code: "backend", type: "server_error" },
    { code: "overloaded", type: "rate_limit_error" },
  ];
  for (const path of [CHAT, COMPLETIONS]) {
    for (const { code, type } of cases) {
      test(`${code} ends a stream of ${path} with one error event`, async () => {
        const failure = { afterTokens: 2, code, message: "the device is gone" };
        const made = harness({ script: () => says("abcdef", { failure, prefillDelayMs: 50 }) });
        const { errors, done } = await readEvents(
          await post(made.app, path, { ...minimalBody(path), stream: true }),
        );
        expect(done).toBe(false);
        expect(errors).toEqual([{ message: "the device is gone", type, param: null, code }]);
        expect(made.engine.running).toBe(0);
        expect(made.lifecycle.openRequests).toBe(0);
      });
    }
  }

  test("of one choice ends the others too", async () => {
    const made = harness({
      script: ({ sampling }) =>
        sampling.seed === 1n
          ? says("abc", { failure: { afterTokens: 1, code: "engine_failed", message: "gone" } })
          : says("x".repeat(1_000), { stepDelayMs: 5 }),
    });
    const response = await post(made.app, CHAT, { ...minimalBody(CHAT), n: 2, seed: 0 });
    expect((await errorOf(response)).status).toBe(503);
    await Bun.sleep(20);
    expect(made.engine.running).toBe(0);
  });
});

describe("a body that is no request", () => {
  for (const path of [CHAT, COMPLETIONS]) {
    for (const [name, body, holds] of [
      ["cut short", '{"messages": [{"role"', "not valid JSON"],
      ["empty", "", "no body"],
      ["a list", "[1, 2]", "JSON object"],
      ["a text", '"hello"', "JSON object"],
      ["null", "null", "JSON object"],
      ["very deep", "[".repeat(1_000_000), "nests deeper than 128"],
    ] as const) {
      test(`${path}: ${name}`, async () => {
        const { status, error } = await errorOf(await post(harness().app, path, body));
        expect(status).toBe(400);
        expect(error.message).toContain(holds);
        expect(error.message.length).toBeLessThan(300);
      });
    }
  }

  test("bytes that are no UTF-8", async () => {
    const body = Buffer.concat([Buffer.from('{"prompt": "'), Buffer.of(0xff, 0xfe), Buffer.from('"}')]);
    const request = new Request(`http://localhost${COMPLETIONS}`, { method: "POST", body });
    const { status, error } = await errorOf(await harness().app.handle(request));
    expect([status, error.code]).toEqual([400, "invalid_json"]);
    expect(error.message).toContain("UTF-8");
  });

  test("a compressed body", async () => {
    const response = await post(harness().app, CHAT, "x", { headers: { "content-encoding": "gzip" } });
    expect((await errorOf(response)).status).toBe(415);
  });

  test("but any content type is read as JSON", async () => {
    for (const type of [
      "text/plain",
      "application/x-www-form-urlencoded",
      "application/json; charset=utf-8",
    ]) {
      const body = JSON.stringify(minimalBody(COMPLETIONS));
      const response = await post(harness().app, COMPLETIONS, body, { headers: { "content-type": type } });
      expect(response.status).toBe(200);
    }
  });
});

describe("a wrong address", () => {
  test("is 404 for an unknown path and 405, with what is possible, for a wrong method", async () => {
    const { app } = harness();
    const at = (method: string, path: string) =>
      app.handle(new Request(`http://localhost${path}`, { method }));
    for (const path of ["/v1/nothing", "/v1", "/v1/chat", "/v1/chat/completions/x"]) {
      const { status, error } = await errorOf(await at("GET", path));
      expect([path, status, error.code]).toEqual([path, 404, "unknown_url"]);
    }
    for (const [method, path, allow] of [
      ["GET", CHAT, "POST"],
      ["DELETE", COMPLETIONS, "POST"],
      ["POST", "/v1/models", "GET, HEAD"],
      ["PUT", "/v1/models/test/scripted", "GET, HEAD"],
      ["POST", "/health", "GET, HEAD"],
      ["PATCH", "/", "GET, HEAD"],
    ] as const) {
      const response = await at(method, path);
      expect([path, response.headers.get("allow")]).toEqual([path, allow]);
      const { status, error } = await errorOf(response);
      expect([status, error.code]).toEqual([405, "method_not_allowed"]);
    }
  });
});
