/** Every class of failure, on each of Anthropic's endpoints, whole and streamed, in Anthropic's words. */

import { describe, expect, test } from "bun:test";
import type { ErrorCode } from "../../../src/errors.ts";
import type { ErrorBody } from "../../../src/server/anthropic/errors.ts";
import { type HarnessOptions, harness, post, says, withServer } from "../harness.ts";
import { readMessage } from "./message-log.ts";

const MESSAGES = "/v1/messages";
const COUNT = "/v1/messages/count_tokens";
const user = (content: unknown = "Hi") => ({ role: "user", content });
const minimal = { max_tokens: 10, messages: [user()] };

interface Refusal {
  readonly name: string;
  readonly options?: HarnessOptions;
  readonly fields?: Record<string, unknown>;
  readonly status: number;
  readonly type: ErrorBody["error"]["type"];
  readonly holds: readonly string[];
  /** Told before the engine is asked, so by the counting endpoint as well. */
  readonly early?: boolean;
  readonly prepare?: (made: ReturnType<typeof harness>) => void;
}

const invalid = (name: string, fields: Record<string, unknown>, ...holds: string[]): Refusal => ({
  name,
  fields,
  status: 400,
  type: "invalid_request_error",
  holds,
});
const early = (refusal: Refusal): Refusal => ({ ...refusal, early: true });
const engine = (code: ErrorCode, status: number, type: Refusal["type"]): Refusal => ({
  name: `the engine's ${code}`,
  options: { script: () => says("abc", { failure: { afterTokens: 0, code, message: "the reason" } }) },
  status,
  type,
  holds: ["the reason"],
});

const REFUSALS: readonly Refusal[] = [
  invalid("no max_tokens", { max_tokens: undefined }, "'max_tokens'"),
  invalid("max_tokens below 0", { max_tokens: -1 }, "-1"),
  invalid("max_tokens of null", { max_tokens: null }, "max_tokens"),
  invalid("temperature out of range", { temperature: 3 }, "temperature", "3"),
  invalid("empty stop sequence", { stop_sequences: [""] }, "stop_sequences"),
  invalid("stop sequences as text", { stop_sequences: "x" }, "stop_sequences", "array"),
  invalid("stream as text", { stream: "yes" }, "stream"),
  invalid("container", { container: "c" }, "container"),
  early(invalid("no messages", { messages: undefined }, "'messages'")),
  early(invalid("messages of none", { messages: [] }, "messages")),
  early(invalid("only a system message", { messages: [{ role: "system", content: "x" }] }, "user")),
  early(
    invalid("unknown role", { messages: [{ role: "tool", content: "x" }] }, "messages[0].role", "assistant"),
  ),
  early(invalid("content as number", { messages: [user(5)] }, "messages[0].content", "5")),
  early(
    invalid(
      "image",
      { messages: [user([{ type: "image", source: {} }])] },
      "messages[0].content[0].type",
      "image",
    ),
  ),
  early(
    invalid(
      "text block without text",
      { messages: [user([{ type: "text" }])] },
      "messages[0].content[0].text",
    ),
  ),
  early(invalid("system image", { system: [{ type: "image" }] }, "system[0].type")),
  early(
    invalid("tools", { tools: [{ name: "f", input_schema: {} }] }, "'tools'", "tool use is not built yet"),
  ),
  early(invalid("tool choice", { tool_choice: { type: "any" } }, "'tool_choice'")),
  early(
    invalid(
      "tool result",
      { messages: [user([{ type: "tool_result", tool_use_id: "t", content: "x" }])] },
      "messages[0].content[0].type",
      "tool use is not built yet",
    ),
  ),
  early(invalid("thinking of no kind", { thinking: { type: "deeply" } }, "thinking")),
  early(invalid("output format", { output_config: { format: { type: "json_schema" } } }, "output_config")),
  early(
    invalid(
      "white space at the end of a begun answer",
      { messages: [user(), { role: "assistant", content: "So " }] },
      "messages[1].content",
      "white space",
    ),
  ),
  early({
    name: "a begun answer that the template changes",
    options: { chatTemplate: { source: "", render: () => "prompt" } },
    fields: { messages: [user(), { role: "assistant", content: "So" }] },
    status: 400,
    type: "invalid_request_error",
    holds: ["cannot be gone on from"],
  }),
  early({
    name: "no chat template",
    options: { chatTemplate: undefined },
    status: 400,
    type: "invalid_request_error",
    holds: ["no chat template"],
  }),
  early({
    name: "unknown model",
    fields: { model: "claude-9" },
    status: 404,
    type: "not_found_error",
    holds: ["claude-9", "test/scripted"],
  }),
  early({
    name: "server draining",
    prepare: ({ lifecycle }) => lifecycle.drain(),
    status: 503,
    type: "overloaded_error",
    holds: ["shutting down"],
  }),
  {
    name: "prompt longer than the context",
    options: { info: { contextLength: 2 } },
    status: 400,
    type: "invalid_request_error",
    holds: ["2"],
  },
  engine("invalid_request", 400, "invalid_request_error"),
  engine("context_length_exceeded", 400, "invalid_request_error"),
  engine("overloaded", 429, "rate_limit_error"),
  engine("engine_failed", 503, "overloaded_error"),
  engine("shutting_down", 503, "overloaded_error"),
  engine("backend", 500, "api_error"),
  engine("insufficient_memory", 500, "api_error"),
  engine("invalid_model_file", 500, "api_error"),
  engine("unsupported_model", 500, "api_error"),
  engine("invalid_configuration", 500, "api_error"),
  engine("network", 500, "api_error"),
  {
    name: "a bug",
    options: { script: () => says("abc", { throws: new TypeError("secret detail") }) },
    status: 500,
    type: "api_error",
    holds: ["log"],
  },
];

async function expectError(response: Response, status: number, type: string): Promise<string> {
  const body = (await response.json()) as ErrorBody;
  expect([response.status, body.error?.type]).toEqual([status, type] as [number, typeof body.error.type]);
  expect(Object.keys(body)).toEqual(["type", "error", "request_id"]);
  expect(Object.keys(body.error)).toEqual(["type", "message"]);
  expect(body.type).toBe("error");
  expect(body.request_id).toBe(response.headers.get("request-id"));
  expect(body.request_id).toMatch(/^req_/);
  expect(response.headers.get("retry-after")).toBe([429, 503].includes(status) ? "1" : null);
  return body.error.message;
}

for (const [path, stream] of [
  [MESSAGES, false],
  [MESSAGES, true],
  [COUNT, false],
] as const) {
  describe(`${path} ${stream ? "streamed" : "whole"} refuses`, () => {
    for (const refusal of REFUSALS) {
      if (path === COUNT && refusal.early !== true) continue;
      test(refusal.name, async () => {
        const made = harness(refusal.options);
        refusal.prepare?.(made);
        const body = { ...minimal, ...(stream ? { stream } : {}), ...refusal.fields };
        const message = await expectError(await post(made.app, path, body), refusal.status, refusal.type);
        for (const part of refusal.holds) expect(message).toContain(part);
        expect(message).not.toContain("secret");
        expect(made.engine.running).toBe(0);
        expect(made.lifecycle.openRequests).toBe(0);
      });
    }
  });
}

describe("before any route", () => {
  test("a body that is no request", async () => {
    for (const body of ['{"messages": [', "[]", "", "null"]) {
      await expectError(await post(harness().app, MESSAGES, body), 400, "invalid_request_error");
    }
  });

  test("a wrong method, and a path below that does not exist", async () => {
    const { app } = harness();
    const get = await app.handle(new Request(`http://localhost${MESSAGES}`));
    expect(get.headers.get("allow")).toBe("POST");
    await expectError(get, 405, "invalid_request_error");
    await expectError(await post(app, `${MESSAGES}/batches`, {}), 404, "not_found_error");
  });

  test("a body above the limit", async () => {
    await withServer({}, async ({ url }) => {
      const body = JSON.stringify({ ...minimal, system: "x".repeat(51 * 1024 * 1024) });
      await expectError(await fetch(url + MESSAGES, { method: "POST", body }), 413, "request_too_large");
    });
  });
});

describe("a failure after the first token", () => {
  for (const [code, type] of [
    ["engine_failed", "overloaded_error"],
    ["backend", "api_error"],
    ["overloaded", "rate_limit_error"],
  ] as const) {
    test(`${code} is the stream's last event`, async () => {
      const failure = { afterTokens: 2, code, message: "the device is gone" };
      const made = harness({ script: () => says("abcdef", { failure, prefillDelayMs: 50 }) });
      const response = await post(made.app, MESSAGES, { ...minimal, stream: true });
      const { events, errors } = await readMessage(response);
      expect(events.filter((event) => event.type === "content_block_delta")).toHaveLength(2);
      expect(errors).toEqual([
        {
          type: "error",
          error: { type, message: "the device is gone" },
          request_id: response.headers.get("request-id"),
        },
      ]);
      expect(made.engine.running).toBe(0);
      expect(made.lifecycle.openRequests).toBe(0);
    });
  }
});
