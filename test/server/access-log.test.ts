import { describe, expect, test } from "bun:test";
import { KeyRing } from "../../src/server/api-keys.ts";
import {
  CHAT,
  COMPLETIONS,
  eventually,
  get,
  type Harness,
  harness,
  post,
  RESPONSES,
  says,
  withServer,
} from "./harness.ts";
import { RawClient } from "./raw-client.ts";

const SECRET = "the launch code is 0000";

function logged(
  options: {
    format?: "text" | "json";
    health?: boolean;
    prompts?: boolean;
    script?: Parameters<typeof says>[1];
  } = {},
): { made: Harness; lines: string[] } {
  const { format = "json", health = false, prompts = false, script = {} } = options;
  const lines: string[] = [];
  const made = harness({
    script: () => says("Hello there!", { stepDelayMs: 1, cachedTokens: 1, ...script }),
    settings: {
      accessLog: { format, health, prompts, write: (line) => lines.push(line) },
      apiKeys: new KeyRing(["alice=k"]),
    },
  });
  return { made, lines };
}

const headers = { authorization: "Bearer k", "x-request-id": "req-1", "content-length": "55" };
const parsed = (lines: readonly string[]) => lines.map((line) => JSON.parse(line) as Record<string, unknown>);

describe("the JSON log", () => {
  for (const [path, body] of [
    [CHAT, { messages: [{ role: "user", content: SECRET }] }],
    [COMPLETIONS, { prompt: SECRET }],
    [RESPONSES, { input: SECRET }],
    ["/v1/messages", { max_tokens: 100, messages: [{ role: "user", content: SECRET }] }],
  ] as const) {
    for (const stream of [false, true]) {
      test(`has two lines for ${path}${stream ? ", streamed" : ""}: its beginning and its end`, async () => {
        const { made, lines } = logged();
        const response = await post(made.app, path, { ...body, stream }, { headers });
        await response.text();
        await eventually("two lines", () => lines.length === 2);
        const [started, completed] = parsed(lines);
        expect(started).toEqual({
          event: "request_started",
          request_id: "req-1",
          method: "POST",
          route: path,
          path,
          content_length: 55,
        });
        expect(completed).toMatchObject({
          event: "request_completed",
          request_id: "req-1",
          route: path,
          model: "test/scripted",
          key: "alice",
          status: 200,
          outcome: "ok",
          cached_tokens: 1,
          completion_tokens: made.engine.generatedTokens,
          prompt_tokens: made.engine.requests[0]!.promptTokens.length,
        });
        expect(completed?.stream).toBe(stream ? true : undefined);
        const { duration_ms, first_token_ms, prefill_tok_s, decode_tok_s } = completed as Record<
          string,
          number
        >;
        for (const figure of [first_token_ms, prefill_tok_s, decode_tok_s]) expect(figure).toBeGreaterThan(0);
        expect(duration_ms).toBeGreaterThan(first_token_ms!);
        // Ten tokens with a millisecond before each of them.
        expect(decode_tok_s).toBeLessThan(1_100);
        expect(lines.join("\n")).not.toContain("launch");
        expect(lines.join("\n")).not.toContain("Bearer");
      });
    }
  }

  test("shows prompts where that is asked for, and only there", async () => {
    const { made, lines } = logged({ prompts: true });
    await (await post(made.app, COMPLETIONS, { prompt: SECRET }, { headers })).text();
    await eventually("two lines", () => lines.length === 2);
    expect(parsed(lines)[1]?.prompt).toBe(SECRET);
  });

  test("tells why a request was refused, without what it said", async () => {
    const { made, lines } = logged();
    await post(made.app, COMPLETIONS, { prompt: "x", temperature: SECRET }, { headers });
    await post(made.app, COMPLETIONS, { prompt: "x" }, {});
    await get(made.app, `/nope/${"n".repeat(50)}`, { headers });
    await eventually("three lines", () => lines.length === 3);
    expect(parsed(lines).map(({ status, outcome, error, route }) => [status, outcome, error, route])).toEqual(
      [
        [400, "error", "invalid_value", COMPLETIONS],
        [401, "error", "missing_api_key", "<unmatched>"],
        [404, "error", "unknown_url", "<unmatched>"],
      ],
    );
    expect(lines.join("\n")).not.toContain("launch");
  });

  test("tells of a stream that failed after its head, and of a client that left", async () => {
    const failure = { afterTokens: 3, code: "engine_failed", message: "it died" } as const;
    const { made, lines } = logged({ script: { failure, prefillDelayMs: 40 } });
    await (await post(made.app, COMPLETIONS, { prompt: "x", stream: true }, { headers })).text();
    await eventually("two lines", () => lines.length === 2);
    expect(parsed(lines)[1]).toMatchObject({ status: 200, outcome: "error", error: "it died" });

    const left: string[] = [];
    const settings = {
      accessLog: { format: "json", health: false, prompts: false, write: (line: string) => left.push(line) },
    } as const;
    await withServer(
      { script: () => says("x".repeat(500), { stepDelayMs: 5 }), settings },
      async ({ port }) => {
        const client = await RawClient.open(port);
        client.post(COMPLETIONS, { prompt: "x", stream: true });
        await eventually("it streams", () => client.received.includes('"text":"x"'));
        client.leave();
        await eventually("two lines", () => left.length === 2);
      },
    );
    expect(parsed(left)[1]).toMatchObject({ outcome: "canceled", abort_cause: "client_left" });
    expect(parsed(left)[1]).not.toHaveProperty("error");
  });

  test("leaves out who only asks how the server is, unless told otherwise", async () => {
    for (const health of [false, true]) {
      const { made, lines } = logged({ health });
      for (const path of ["/health", "/ready", "/metrics"])
        await (await get(made.app, path, { headers })).text();
      await Bun.sleep(20);
      expect(lines).toHaveLength(health ? 6 : 0);
    }
  });
});

test("the text log has one line for people", async () => {
  const { made, lines } = logged({ format: "text" });
  await (await post(made.app, COMPLETIONS, { prompt: SECRET }, { headers })).text();
  await get(made.app, "/nope\u001b[2J", { headers });
  await eventually("two lines", () => lines.length === 2);
  expect(lines[0]).toMatch(
    /^POST \/v1\/completions 200 in [\d.]+ ms, test\/scripted, \d+ \(1 cached\) \+ \d+ tokens, prefill [\d.]+ tokens\/s, decode [\d.]+ tokens\/s, key alice, req-1$/,
  );
  for (const line of lines) expect(line).toMatch(/^[\x20-\x7e]+$/);
});
