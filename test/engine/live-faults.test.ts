/**
 * Faults against a server as a user starts it, with a tiny model on the real kernels: engine processes killed and
 * frozen, clients that vanish, floods beyond the queue, signals under load, prompts around the limit.
 */

import { describe, expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import {
  LOOPBACK,
  residentBytes,
  type ServingProcess,
  startServing,
  stopServersAfterEach,
} from "../cli/processes.ts";
import { RawClient } from "../server/raw-client.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";
import { writeTinyModel } from "../support/tiny-model.ts";
import { complete, engineProcesses, LiveStream, metricsOf, untilIdle, untilReady } from "./live.ts";
import { Chance } from "./simulation/clock.ts";
import { soak } from "./soak.ts";

const CONTEXT = 8192;
const folder = temporaryFolder("faults");
const model = join(folder, "tiny");
writeTinyModel(model, { contextLength: CONTEXT });
stopServersAfterEach();

function serve(...options: string[]): Promise<ServingProcess> {
  return startServing(["serve", "-m", model, "--threads", "1", ...LOOPBACK, ...options]);
}

/** Goes on for seconds. */
const LONG = { max_tokens: 8000 };

describe("an engine process that is", () => {
  test("killed in the middle of streams: each has its error within a second, and the next request is served", async () => {
    const { child, url } = await serve();
    const expected = await complete(url, { max_tokens: 40 });
    const streams = Array.from({ length: 4 }, () => new LiveStream(url, LONG));
    await Promise.all(streams.map((stream) => stream.begun()));
    const [engine] = await engineProcesses(child.pid);
    const killedAtMs = performance.now();
    process.kill(engine!, "SIGKILL");
    await Promise.all(streams.map(({ done }) => done));
    for (const { error, text, endedAtMs } of streams) {
      expect(error).toMatchObject({ code: "engine_failed", message: expect.stringContaining("SIGKILL") });
      expect(text.split('"error"')).toHaveLength(2);
      expect(text).not.toContain("[DONE]");
      expect(endedAtMs - killedAtMs).toBeLessThan(1000);
    }
    // The process lives all the while; ready it is only when the engine is.
    expect((await fetch(`${url}/health`)).status).toBe(200);
    await untilReady(url);
    expect((await complete(url, { max_tokens: 40 })).body.split('"text"')[1]).toBe(
      expected.body.split('"text"')[1]!,
    );
    const metrics = await untilIdle(url, 1000);
    expect(metrics.get("mistralrs_engine_restarts_total")).toBe(1);
    expect(metrics.get('mistralrs_sequences_completed_total{reason="error"}')).toBe(4);
    expect((await engineProcesses(child.pid))[0]).not.toBe(engine!);
  }, 60_000);

  test("frozen: noticed, replaced, and /health answers all the while", async () => {
    const { child, url } = await serve("--engine-timeout", "1", "--max-num-batched-tokens", "32");
    // Enough steps for their speed to be known, and the slow first ones to be forgotten.
    await complete(url, { max_tokens: 400 });
    const stream = new LiveStream(url, LONG);
    await stream.begun();
    const [engine] = await engineProcesses(child.pid);
    process.kill(engine!, "SIGSTOP");
    let slowestMs = 0;
    while (!stream.ended) {
      const startMs = performance.now();
      expect((await fetch(`${url}/health`)).status).toBe(200);
      slowestMs = Math.max(slowestMs, performance.now() - startMs);
      await Bun.sleep(20);
    }
    expect(slowestMs).toBeLessThan(250);
    expect(stream.error).toMatchObject({ code: "engine_failed", message: expect.stringContaining("hangs") });
    await untilReady(url);
    expect((await complete(url, { max_tokens: 4 })).status).toBe(200);
    expect((await metricsOf(url)).get("mistralrs_engine_hangs_total")).toBe(1);
  }, 60_000);

  test("killed takes no other model along", async () => {
    const second = join(folder, "second");
    writeTinyModel(second, { contextLength: CONTEXT });
    const config = join(folder, "two.toml");
    const table = (path: string, alias: string) =>
      `[[models]]\nkind = "text"\nmodel_id = ${JSON.stringify(path)}\nalias = "${alias}"\n`;
    writeFileSync(
      config,
      `command = "serve"\n[server]\nport = 0\nhost = "127.0.0.1"\n[runtime]\nthreads = 1\n${table(model, "one")}${table(second, "two")}`,
    );
    const { child, url } = await startServing(["from-config", "--file", config]);
    const before = await engineProcesses(child.pid);
    const streams = ["one", "two"].map((name) => new LiveStream(url, { model: name, max_tokens: 3000 }));
    await Promise.all(streams.map((stream) => stream.begun()));
    process.kill(before[0]!, "SIGKILL");
    await Promise.all(streams.map(({ done }) => done));
    const failed = streams.filter(({ error }) => error !== undefined);
    expect(failed).toHaveLength(1);
    const [survivor] = streams.filter(({ error }) => error === undefined);
    expect(survivor?.text).toEndWith("data: [DONE]\n\n");
    expect(await engineProcesses(child.pid)).toContain(before[1]!);
  }, 60_000);
});

test("a hundred sockets dropped at random moments free everything, and a stream beside them says what it says alone", async () => {
  const { url } = await serve("--max-seqs", "8", "--max-num-batched-tokens", "64");
  const port = Number(new URL(url).port);
  const chance = new Chance(20_240_601);
  const golden = { max_tokens: 1500, prompt: "The golden stream" };
  const alone = new LiveStream(url, golden);
  await alone.done;
  const beside = new LiveStream(url, golden);
  await beside.begun();
  const clients = Array.from({ length: 100 }, async (_, index) => {
    await Bun.sleep(chance.next() * 600);
    const client = await RawClient.open(port);
    const prompt = `${index} `.repeat(chance.whole(1, 300));
    client.post("/v1/completions", {
      prompt,
      ignore_eos: true,
      stream: chance.happens(0.5),
      n: chance.whole(1, 2),
      ...LONG,
    });
    await Bun.sleep(chance.next() * 400);
    client.leave();
  });
  await Promise.all([...clients, beside.done]);
  expect(beside.text).toEndWith("data: [DONE]\n\n");
  expect(beside.answer).toBe(alone.answer);
  const metrics = await untilIdle(url, 1000);
  expect(metrics.get('mistralrs_sequences_completed_total{reason="canceled"}')).toBeGreaterThanOrEqual(80);
  expect(metrics.get("mistralrs_engine_restarts_total")).toBe(0);
  expect((await complete(url, { max_tokens: 5 })).status).toBe(200);
}, 60_000);

test("three times what may wait: the rest is refused with Retry-After, the accepted finish, memory stays", async () => {
  const { child, url } = await serve("--max-seqs", "4", "--max-queued-requests", "28");
  const bound = 4 + 28;
  const [engine] = await engineProcesses(child.pid);
  const memory: number[] = [];
  for (let round = 0; round < 8; round++) {
    const answers = await Promise.all(
      Array.from({ length: 3 * bound }, (_, index) =>
        complete(url, {
          prompt: `Round ${round}, request ${index}`,
          max_tokens: 40,
          stream: index % 2 === 0,
        }),
      ),
    );
    const accepted = answers.filter(({ status }) => status === 200);
    const refused = answers.filter(({ status }) => status === 429);
    expect(accepted.length + refused.length).toBe(3 * bound);
    // As many as fit are taken, and while they finish some more.
    expect(accepted.length).toBeGreaterThanOrEqual(bound);
    expect(refused.length).toBeGreaterThan(0);
    for (const { retryAfter, body } of refused) {
      expect(Number(retryAfter)).toBeGreaterThan(0);
      expect(body).toContain("the queue is full");
    }
    for (const { body } of accepted) expect(body).toContain('"finish_reason":"length"');
    const metrics = await untilIdle(url, 1000);
    expect(metrics.get('mistralrs_sequences_rejected_total{reason="queue_full"}')).toBeGreaterThanOrEqual(
      refused.length,
    );
    memory.push(residentBytes(child.pid) + residentBytes(engine!));
  }
  // What the first rounds took to warm up is not taken again and again.
  expect(memory[7]! - memory[3]!).toBeLessThan(30e6);
}, 60_000);

test("more prompt tokens than may wait are refused, too", async () => {
  const { url } = await serve("--max-seqs", "1", "--max-queued-tokens", "3000");
  const running = new LiveStream(url, LONG);
  await running.begun();
  const prompt = "x".repeat(1000);
  const answers = await Promise.all(
    Array.from({ length: 6 }, () =>
      complete(url, { prompt, max_tokens: 1 }, AbortSignal.timeout(800)).catch(() => null),
    ),
  );
  expect(answers.filter((answer) => answer?.status === 429)).toHaveLength(3);
  expect(answers.find((answer) => answer !== null)?.body).toContain("3000 may wait (--max-queued-tokens)");
}, 60_000);

test("a request that waits longer than --queue-timeout is answered with 429", async () => {
  const { url } = await serve("--max-seqs", "1", "--queue-timeout", "1");
  const running = new LiveStream(url, LONG);
  await running.begun();
  const startMs = performance.now();
  const { status, retryAfter, body } = await complete(url, { max_tokens: 1 });
  expect({ status, retryAfter }).toEqual({ status: 429, retryAfter: "1" });
  expect(body).toContain("without being run");
  expect(performance.now() - startMs).toBeGreaterThan(900);
  expect((await metricsOf(url)).get('mistralrs_sequences_rejected_total{reason="queue_timeout"}')).toBe(1);
}, 60_000);

describe("SIGTERM with twenty streams open", () => {
  test("lets all of them finish, refuses new ones and ends with 0 before the timeout", async () => {
    const { child, url, log } = await serve("--max-seqs", "8", "--shutdown-timeout", "30");
    const streams = Array.from(
      { length: 20 },
      (_, index) => new LiveStream(url, { max_tokens: 300 + 20 * index }),
    );
    // Eight run and twelve wait; those finish as well.
    await Promise.all(streams.slice(0, 8).map((stream) => stream.begun()));
    while ((await metricsOf(url)).get("mistralrs_sequences_waiting") !== 12) await Bun.sleep(1);
    child.kill("SIGTERM");
    while (!log().includes("no new requests")) await Bun.sleep(1);
    const late = await complete(url, { max_tokens: 1 }).catch(() => null);
    if (late !== null) expect(late.status).toBe(503);
    await Promise.all(streams.map(({ done }) => done));
    for (const stream of streams) {
      expect(stream.error).toBeUndefined();
      expect(stream.text).toContain('"finish_reason":"length"');
      expect(stream.text).toEndWith("data: [DONE]\n\n");
    }
    expect(await child.exited).toBe(0);
  }, 60_000);

  test("ends with an error event what is not finished at the timeout, and with 0", async () => {
    const { child, url } = await serve("--shutdown-timeout", "1");
    const streams = Array.from({ length: 20 }, () => new LiveStream(url, LONG));
    await Promise.all(streams.slice(0, 16).map((stream) => stream.begun()));
    const startMs = performance.now();
    child.kill("SIGTERM");
    await Promise.all(streams.map(({ done }) => done));
    for (const { error } of streams) expect(error).toMatchObject({ code: "shutting_down" });
    expect(await child.exited).toBe(0);
    expect(performance.now() - startMs).toBeLessThan(5000);
  }, 60_000);
});

test.each([
  ["one below the limit", -1, 200],
  ["at the limit", 0, 400],
  ["one above the limit", 1, 400],
])(
  "a prompt %s",
  async (_, beyond, status) => {
    const { url } = await serve("--pa-context-len", "256");
    const prompt = new Array(256 + beyond).fill(40);
    const streamed = await complete(url, { prompt, max_tokens: 10, stream: true });
    const whole = await complete(url, { prompt, max_tokens: 10 });
    expect([streamed.status, whole.status]).toEqual([status, status]);
    if (status === 200) {
      // One token fits, and then the wall.
      expect(JSON.parse(whole.body)).toMatchObject({
        choices: [{ finish_reason: "length" }],
        usage: { prompt_tokens: 255, completion_tokens: 1 },
      });
      return;
    }
    const huge = await complete(url, { prompt: new Array(2560).fill(40), max_tokens: 10 });
    for (const [{ body }, length] of [
      [streamed, 256 + beyond],
      [whole, 256 + beyond],
      [huge, 2560],
    ] as const) {
      const { error } = JSON.parse(body);
      expect(error.code).toBe("context_length_exceeded");
      expect(error.message).toContain(`${length}`);
      expect(error.message).toContain("256");
    }
    // Only a prompt that is to be cut is cut.
    const cut = await complete(url, {
      prompt: new Array(2560).fill(40),
      max_tokens: 10,
      truncate_sequence: true,
    });
    expect(JSON.parse(cut.body)).toMatchObject({ usage: { prompt_tokens: 246, completion_tokens: 10 } });
  },
  60_000,
);

test("two thousand tiny requests, a fifth of them left by their clients: nothing is held and memory stays", async () => {
  const { child, url } = await serve();
  const { answered, aborted, serverGrowthBytes, engineGrowthBytes } = await soak({
    url,
    pid: child.pid,
    requests: 2000,
    clients: 16,
  });
  expect(answered + aborted).toBe(2000);
  expect(aborted).toBeGreaterThan(300);
  expect(serverGrowthBytes).toBeLessThan(40e6);
  expect(engineGrowthBytes).toBeLessThan(20e6);
}, 60_000);
