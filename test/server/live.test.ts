import { describe, expect, test } from "bun:test";
import { join } from "node:path";
import { LIMITS } from "../../src/server/limits.ts";
import type { ChatCompletion } from "../../src/server/openai/responses.ts";
import {
  CHAT,
  COMPLETIONS,
  errorOf,
  eventually,
  minimalBody,
  readEvents,
  says,
  withServer,
} from "./harness.ts";
import { RawClient } from "./raw-client.ts";

/** Runs for ten seconds if nobody ends it. */
const LONG = says("x".repeat(1_000), { stepDelayMs: 10 });
/** Says nothing for ten seconds. */
const SLOW_PREFILL = says("x", { prefillDelayMs: 10_000 });

function send(
  url: string,
  path: string,
  body: Record<string, unknown>,
  init: RequestInit = {},
): Promise<Response> {
  return fetch(url + path, {
    method: "POST",
    body: JSON.stringify({ ...minimalBody(path), ...body }),
    ...init,
  });
}

describe("a client that leaves", () => {
  for (const path of [CHAT, COMPLETIONS]) {
    for (const stream of [true, false]) {
      for (const [moment, script] of [
        ["before the first token", SLOW_PREFILL],
        ["in the middle", LONG],
      ] as const) {
        test(`${moment} of ${path}${stream ? ", streamed" : ""}, frees the engine`, async () => {
          await withServer({ script: () => script }, async ({ port }, { engine }) => {
            const client = await RawClient.open(port);
            client.post(path, { ...minimalBody(path), stream, n: 2 });
            await eventually("both choices run", () => engine.running === 2);
            if (script === LONG) await eventually("tokens come", () => engine.generatedTokens > 4);
            client.leave();
            await eventually("the engine is free", () => engine.running === 0, 500);
            expect(engine.aborted).toBe(2);
          });
        });
      }
    }
  }

  test("by aborting its fetch frees the engine as well", async () => {
    await withServer({ script: () => LONG }, async (server, { engine, log }) => {
      const abort = new AbortController();
      const response = await send(server.url, CHAT, { stream: true }, { signal: abort.signal });
      await response.body!.getReader().read();
      abort.abort();
      await eventually("the engine is free", () => engine.running === 0, 500);
      await eventually("the request is closed", () => server.openRequests === 0, 500);
      expect(log).toEqual([]);
    });
  });

  test("leaves the answers of others alone", async () => {
    await withServer({ script: () => says("y".repeat(50), { stepDelayMs: 4 }) }, async (server) => {
      const other = send(server.url, CHAT, { stream: true }).then((response) => readEvents(response));
      for (let index = 0; index < 5; index += 1) {
        const client = await RawClient.open(server.port);
        client.post(CHAT, { ...minimalBody(CHAT), stream: true });
        await Bun.sleep(10);
        client.leave();
      }
      const { chunks } = await other;
      expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe("y".repeat(50));
    });
  });
});

describe("silence", () => {
  test("is filled with comments from the first moment, and only silence is", async () => {
    const script = () => says("abc", { prefillDelayMs: 400, stepDelayMs: 5 });
    await withServer({ script, settings: { keepAliveIntervalMs: 80 } }, async ({ port }) => {
      const client = await RawClient.open(port);
      const started = performance.now();
      client.post(COMPLETIONS, { ...minimalBody(COMPLETIONS), stream: true });
      await eventually("headers are there", () => client.received.includes("text/event-stream"));
      expect(performance.now() - started).toBeLessThan(200);
      await eventually("the stream ends", () => client.received.includes("[DONE]"));
      const comments = client.received.split(": keep-alive\n\n").length - 1;
      expect(comments).toBeGreaterThanOrEqual(3);
      expect(comments).toBeLessThanOrEqual(5);
      expect(client.received.indexOf("keep-alive\n\n")).toBeLessThan(client.received.indexOf("data: "));
      client.leave();
    });
  });

  test("is not filled when tokens come more often", async () => {
    const script = () => says("z".repeat(40), { stepDelayMs: 8 });
    await withServer({ script, settings: { keepAliveIntervalMs: 150 } }, async ({ url }) => {
      // The one comment opens the stream.
      expect((await readEvents(await send(url, CHAT, { stream: true }))).comments).toBe(1);
    });
  });

  test("longer than the idle time of connections ends no stream and no answer", async () => {
    const child = Bun.spawn([process.execPath, join(import.meta.dir, "slow-server.ts")], { stdout: "pipe" });
    try {
      const { value } = await child.stdout.getReader().read();
      const url = new TextDecoder().decode(value).trim();
      const [streamed, whole] = await Promise.all([
        send(url, CHAT, { stream: true }).then((response) => readEvents(response)),
        send(url, CHAT, {}).then((response) => response.json() as Promise<ChatCompletion>),
      ]);
      expect(streamed.done).toBe(true);
      expect(whole.choices[0]?.message.content).toBe("late");
    } finally {
      child.kill();
      await child.exited;
    }
  }, 15_000);
});

describe("a client that does not read", () => {
  test("loses its stream, and the engine never waits for it", async () => {
    const burst = "0123456789".repeat(100);
    const script = () => ({
      tokens: [...Buffer.from(burst.repeat(60))],
      tokensPerStep: 1_000,
      stepDelayMs: 1,
    });
    const options = {
      script,
      info: { contextLength: 1e6, blockCount: 1e6 },
      settings: { streamBacklogBytes: 16_384 },
    };
    await withServer(options, async (server, { engine }) => {
      const client = await RawClient.open(server.port);
      client.stopReading();
      for (let index = 0; index < 1; index += 1)
        client.post(COMPLETIONS, { prompt: "Hi", stream: true, n: 100 });
      await eventually("all choices run", () => engine.requests.length === 100);
      await eventually("the server gives up on it", () => server.openRequests === 0, 10_000);
      await eventually("the engine is free", () => engine.running === 0);
      expect(engine.aborted).toBeGreaterThan(0);
      expect((await fetch(`${server.url}/health`)).status).toBe(200);
      client.leave();
    });
  }, 20_000);

  test("but only pauses, gets everything", async () => {
    const script = () => says("p".repeat(200), { stepDelayMs: 1 });
    await withServer({ script }, async ({ port }) => {
      const client = await RawClient.open(port);
      client.post(COMPLETIONS, { prompt: "Hi", stream: true });
      await eventually("it begins", () => client.received.includes('"text":"p"'));
      client.stopReading();
      await Bun.sleep(300);
      client.readAgain();
      await eventually("it ends", () => client.received.includes("[DONE]"));
      expect(client.received.split('"text":"p"').length - 1).toBe(200);
      client.leave();
    });
  });
});

describe("the size of a body", () => {
  const MIB = 1024 * 1024;
  const padded = (bytes: number) => JSON.stringify({ prompt: "Hi", user: "u".repeat(bytes) });

  test("of 10 MB is no matter", async () => {
    await withServer({}, async ({ url }) => {
      const response = await fetch(url + COMPLETIONS, { method: "POST", body: padded(10_000_000) });
      expect(response.status).toBe(200);
      await response.body?.cancel();
    });
  });

  test("above the limit is 413 in the dialect's words, announced or chunked", async () => {
    await withServer({}, async ({ url, port }) => {
      const announced = await errorOf(await fetch(url + CHAT, { method: "POST", body: padded(51 * MIB) }));
      expect(announced).toMatchObject({ status: 413, error: { code: "request_too_large" } });
      expect(announced.error.message).toContain(String(LIMITS.bodyBytes));

      const client = await RawClient.open(port);
      client.write(`POST ${CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n`);
      const chunk = Buffer.concat([Buffer.from("100000\r\n"), Buffer.alloc(MIB, "x"), Buffer.from("\r\n")]);
      for (let index = 0; index < 51; index += 1) client.write(chunk);
      client.write("0\r\n\r\n");
      await eventually("an answer", () => client.received.includes("request_too_large"), 10_000);
      expect(client.received).toStartWith("HTTP/1.1 413");
      client.leave();
      expect((await fetch(`${url}/health`)).status).toBe(200);
    });
  }, 20_000);
});

test("an engine that runs does not make /health wait", async () => {
  await withServer({ script: () => SLOW_PREFILL }, async ({ url }, { engine }) => {
    const abort = new AbortController();
    const busy = send(url, CHAT, {}, { signal: abort.signal }).catch(() => undefined);
    await eventually("it runs", () => engine.running === 1);
    const answer = await (await fetch(`${url}/health`)).json();
    expect(answer).toEqual({
      status: "ok",
      models: [{ id: "test/scripted", state: "ready", running: 1, waiting: 0 }],
    });
    engine.state = "failed";
    expect(await (await fetch(`${url}/health`)).json()).toMatchObject({ status: "degraded" });
    abort.abort();
    await busy;
  });
});
