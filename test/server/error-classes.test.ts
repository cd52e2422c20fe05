/** Every class of failure an engine can tell of, on every endpoint that generates, streamed and whole. */

import { expect, test } from "bun:test";
import type { ErrorCode } from "../../src/errors.ts";
import { CHAT, COMPLETIONS, errorOf, harness, minimalBody, post, RESPONSES, says } from "./harness.ts";

const MESSAGES = "/v1/messages";
const EMBEDDINGS = "/v1/embeddings";

/** Exhaustive by its type: a new class must be given its status here. */
const STATUS: Readonly<Record<ErrorCode, number>> = {
  invalid_request: 400,
  context_length_exceeded: 400,
  model_not_found: 404,
  overloaded: 429,
  engine_failed: 503,
  shutting_down: 503,
  insufficient_memory: 500,
  invalid_model_file: 500,
  unsupported_model: 500,
  invalid_configuration: 500,
  network: 500,
  backend: 500,
};

const BODIES: readonly (readonly [path: string, body: Record<string, unknown>, streams: boolean])[] = [
  [CHAT, minimalBody(CHAT), true],
  [COMPLETIONS, minimalBody(COMPLETIONS), true],
  [RESPONSES, minimalBody(RESPONSES), true],
  [MESSAGES, { max_tokens: 8, messages: [{ role: "user", content: "Hi" }] }, true],
  [EMBEDDINGS, { input: "Hi" }, false],
];

const CASES = BODIES.flatMap(([path, body, streams]) =>
  (streams ? [false, true] : [false]).flatMap((stream) =>
    (Object.keys(STATUS) as ErrorCode[]).map((code) => ({ path, body, stream, code })),
  ),
);

test.each(CASES)("$code on $path, stream $stream", async ({ path, body, stream, code }) => {
  const failure = { afterTokens: 0, code, message: "so it is" };
  const made = harness({ script: () => says("abc", { failure }) });
  const response = await post(made.app, path, { model: "default", ...body, ...(stream ? { stream } : {}) });
  const status = STATUS[code];
  expect(response.status).toBe(status);
  expect(response.headers.get("content-type")).toContain("application/json");
  expect(response.headers.get("retry-after")).toBe([429, 503].includes(status) ? "1" : null);
  if (path === MESSAGES) {
    const answer = (await response.json()) as { type: string; error: { type: string; message: string } };
    expect(answer.type).toBe("error");
    expect(answer.error.message).toContain("so it is");
  } else {
    const { error } = await errorOf(response);
    expect(error.message).toContain("so it is");
    expect(error.code).toBe(code === "invalid_request" ? "invalid_value" : code);
  }
  expect(made.engine.running).toBe(0);
  expect(made.lifecycle.openRequests).toBe(0);
});
