/** What a client may not do to the server: bombs, floods, silence. After each the server answers as before. */

import { describe, expect, test } from "bun:test";
import { LIMITS } from "../../src/server/limits.ts";
import {
  CHAT,
  COMPLETIONS,
  errorOf,
  eventually,
  harness,
  minimalBody,
  post,
  RESPONSES,
  readEvents,
  says,
  withServer,
} from "./harness.ts";
import { RawClient } from "./raw-client.ts";

const PATHS = [CHAT, COMPLETIONS, RESPONSES];

describe("headers", () => {
  const cases = [
    [
      "too many",
      Object.fromEntries(Array.from({ length: LIMITS.headers + 1 }, (_, index) => [`x-h${index}`, "1"])),
    ],
    ["too large", { "x-large": "a".repeat(LIMITS.headerBytes) }],
  ] as const;
  for (const [name, headers] of cases) {
    test(`that are ${name} are 431 in the dialect's words`, async () => {
      for (const path of PATHS) {
        const { status, error } = await errorOf(
          await post(harness().app, path, minimalBody(path), { headers }),
        );
        expect([status, error.code]).toEqual([431, "headers_too_large"]);
      }
    });
  }

  test("at the limit pass", async () => {
    const headers = Object.fromEntries(
      Array.from({ length: 80 }, (_, index) => [`x-h${index}`, "v".repeat(100)]),
    );
    const response = await post(harness().app, COMPLETIONS, minimalBody(COMPLETIONS), { headers });
    expect(response.status).toBe(200);
  });

  test("without end are cut off by the transport, and nobody else notices", async () => {
    await withServer({}, async ({ port, url }) => {
      const client = await RawClient.open(port);
      client.write("GET /health HTTP/1.1\r\nhost: x\r\n");
      for (let index = 0; index < 64 && !client.closed; index += 1) {
        client.write(`x-${index}: ${"a".repeat(4_000)}\r\n`);
        await Bun.sleep(1);
      }
      await eventually("an end", () => client.closed || client.received.startsWith("HTTP/1.1 431"));
      client.leave();
      expect((await fetch(`${url}/health`)).status).toBe(200);
    });
  });
});

describe("a body", () => {
  const deep = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
  const nested = (path: string, text: string) =>
    `${JSON.stringify(minimalBody(path)).slice(0, -1)},"x":${text}}`;

  for (const path of PATHS) {
    test(`of brackets is refused in no time, on ${path}`, async () => {
      for (const text of ["[".repeat(10_000_000), deep(200_000), nested(path, deep(LIMITS.jsonDepth))]) {
        const started = performance.now();
        const { status, error } = await errorOf(await post(harness().app, path, text));
        expect([status, error.code]).toEqual([400, "invalid_json"]);
        expect(error.message).toContain("nests deeper");
        expect(performance.now() - started).toBeLessThan(500);
      }
      const allowed = await post(harness().app, path, nested(path, deep(LIMITS.jsonDepth - 2)));
      expect(allowed.status).toBe(200);
    });

    test(`with brackets in its texts is not deep, on ${path}`, async () => {
      const text = `\\"${"[{".repeat(500)}\\\\`;
      const response = await post(harness().app, path, nested(path, JSON.stringify(text)));
      expect(response.status).toBe(200);
    });

    test(`that is not UTF-8 is refused, on ${path}`, async () => {
      for (const bytes of [
        [0xff],
        [0xc3, 0x28],
        [0xe2, 0x82],
        [0xed, 0xa0, 0x80],
        [0xf5, 0x80, 0x80, 0x80],
      ]) {
        const [head, tail] = JSON.stringify({ ...minimalBody(path), user: "@" }).split("@");
        const body = Buffer.concat([Buffer.from(head!), Buffer.from(bytes), Buffer.from(tail!)]);
        const response = await harness().app.handle(
          new Request(`http://localhost${path}`, { method: "POST", body }),
        );
        expect(await errorOf(response)).toMatchObject({ status: 400, error: { code: "invalid_json" } });
      }
    });

    test(`with half a surrogate pair is answered, on ${path}`, async () => {
      const response = await post(
        harness().app,
        path,
        nested(path, '"\\ud800"').replace('"Hi"', '"Hi \\ud83d"'),
      );
      expect(response.status).toBe(200);
      expect(() => JSON.parse("1")).not.toThrow();
      await response.json();
    });

    test(`with ten thousand unknown fields is answered with a bounded warning, on ${path}`, async () => {
      const many = Object.fromEntries(Array.from({ length: 10_000 }, (_, index) => [`field_${index}`, 1]));
      const made = harness();
      const response = await post(made.app, path, { ...minimalBody(path), ...many });
      expect(response.status).toBe(200);
      expect(response.headers.get("x-mistral-warning")!.length).toBeLessThanOrEqual(2_000);
      expect(made.log.length).toBeLessThanOrEqual(LIMITS.rememberedWarnings);
    });

    test(`with the keys of objects' prototypes changes nothing, on ${path}`, async () => {
      const response = await post(
        harness().app,
        path,
        nested(path, '{"__proto__":{"polluted":1}},"__proto__":{"polluted":1},"constructor":1'),
      );
      expect(response.status).toBe(200);
      expect(({} as Record<string, unknown>).polluted).toBeUndefined();
    });

    test(`with a prompt of 10 MB is told how long prompts may be, before anything counts its tokens, on ${path}`, async () => {
      const text = "x".repeat(10_000_000);
      const body =
        path === CHAT
          ? { messages: [{ role: "user", content: text }] }
          : path === RESPONSES
            ? { input: text }
            : { prompt: text };
      for (const stream of [false, true]) {
        const made = harness();
        const started = performance.now();
        const { status, error } = await errorOf(await post(made.app, path, { ...body, stream }));
        expect([status, error.code]).toEqual([400, "context_length_exceeded"]);
        expect(error.message).toContain("4096");
        expect(performance.now() - started).toBeLessThan(1_000);
        expect(made.engine.requests).toEqual([]);
      }
    });
  }
});

describe("time", () => {
  test("runs out for an answer that takes too long, whole or streamed, and the engine is freed", async () => {
    const settings = { requestTimeoutMs: 80 };
    for (const path of PATHS) {
      const made = harness({ script: () => says("x".repeat(1_000), { stepDelayMs: 10 }), settings });
      const whole = await errorOf(await post(made.app, path, minimalBody(path)));
      expect([whole.status, whole.error.code]).toEqual([504, "request_timeout"]);
      expect(whole.error.message).toContain("0.08 s");
      const streamed = await post(made.app, path, { ...minimalBody(path), stream: true });
      if (path === RESPONSES) expect(await streamed.text()).toContain('"code":"request_timeout"');
      else expect((await readEvents(streamed)).errors[0]?.code).toBe("request_timeout");
      await eventually("the engine is free", () => made.engine.running === 0, 500);
      expect(made.log).toEqual([]);
    }
  });

  test("is not wasted on what is quick", async () => {
    const { app } = harness({ settings: { requestTimeoutMs: 80 } });
    for (let time = 0; time < 3; time += 1) {
      expect((await post(app, COMPLETIONS, minimalBody(COMPLETIONS))).status).toBe(200);
      await Bun.sleep(50);
    }
  });
});

test("a thousand idle connections cost nobody anything", async () => {
  await withServer({ script: () => says("still here", { stepDelayMs: 1 }) }, async ({ port, url }) => {
    const idle = await Promise.all(Array.from({ length: 1_000 }, () => RawClient.open(port)));
    // Some of them have begun a request and stopped in the middle of it.
    for (const client of idle.slice(0, 100))
      client.write("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-le");
    const started = performance.now();
    expect((await fetch(`${url}/health`)).status).toBe(200);
    const response = await fetch(url + COMPLETIONS, {
      method: "POST",
      body: JSON.stringify({ prompt: "Hi" }),
    });
    expect(await response.json()).toMatchObject({ choices: [{ text: "still here" }] });
    expect(performance.now() - started).toBeLessThan(1_000);
    expect(idle.filter(({ closed }) => closed)).toEqual([]);
    for (const client of idle) client.leave();
  });
}, 20_000);
