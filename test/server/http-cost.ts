/**
 * What HTTP costs beside the engine: streams at a fixed rate from an engine that only keeps time. Run by hand:
 *
 * `bun test/server/http-cost.ts [--streams 64] [--rate 100] [--seconds 10]`
 *
 * Prints one JSON object: the share of one core that the serving process took, of which the simulated engine is a
 * part, and how long after the engine gave a token its client had it. Client and server are processes of their own.
 */

import { parseArgs } from "node:util";
import type { Engine, EngineStatistics, GenerationEvent } from "../../src/engine/messages.ts";
import { startServer } from "../../src/server/listen.ts";
import { ModelRegistry } from "../../src/server/model-registry.ts";
import type { Tokenizer } from "../../src/text/types.ts";
import { harness } from "./harness.ts";

const { values: options } = parseArgs({
  options: {
    streams: { type: "string", default: "64" },
    rate: { type: "string", default: "100" },
    seconds: { type: "string", default: "10" },
    path: { type: "string", default: "/v1/chat/completions" },
    serve: { type: "boolean", default: false },
  },
});
const streams = Number(options.streams);
const rate = Number(options.rate);
const seconds = Number(options.seconds);

/** Times of one clock, whichever process asks. */
const now = () => performance.timeOrigin + performance.now();

/** Gives every request a token at each tick, all at the same moment, as a step of a real engine does. */
class TickingEngine implements Engine {
  readonly info = { ...harness().engine.info, contextLength: 1e6, blockCount: 1e6, sequencesMax: 4096 };
  readonly state = "ready";
  readonly #waiting = new Set<() => void>();
  /** When each token was given; the token's id is its place here. */
  readonly stamps: number[] = [];

  constructor() {
    // Ticks are counted from the start, so that a late one does not delay those after it.
    const start = performance.now();
    const tick = () => {
      this.stamps.push(now());
      for (const wake of this.#waiting) wake();
      this.#waiting.clear();
      setTimeout(tick, Math.max(0, start + (this.stamps.length * 1000) / rate - performance.now()));
    };
    tick();
  }

  async *generate(
    request: { readonly maxTokens: number },
    signal?: AbortSignal,
  ): AsyncGenerator<GenerationEvent, void, undefined> {
    let sent = 0;
    for (; sent < request.maxTokens && signal?.aborted !== true; sent += 1) {
      await new Promise<void>((resolve) => this.#waiting.add(resolve));
      yield { type: "tokens", tokens: [this.stamps.length - 1], logprobs: [] };
    }
    yield {
      type: "finish",
      reason: "length",
      usage: { promptTokens: 1, completionTokens: sent, cachedTokens: 0 },
    };
  }

  statistics(): EngineStatistics {
    return harness().engine.statistics();
  }

  async close(): Promise<void> {}
}

function serve(): void {
  const engine = new TickingEngine();
  const { models } = harness();
  const bytes = (token: number) => Buffer.from(`${engine.stamps[token]?.toFixed(3)} `);
  const tokenizer: Tokenizer = Object.assign(Object.create(models.list()[0]!.tokenizer), {
    tokenBytes: bytes,
    isSpecial: () => false,
    encode: () => [0],
    vocabularySize: 1,
  });
  const model = { ...models.list()[0]!, engine, tokenizer };
  const server = startServer({
    hostname: "127.0.0.1",
    port: 0,
    models: new ModelRegistry([model]),
    settings: { keepAliveIntervalMs: 10_000 },
  });
  console.log(server.url);
  let before = process.cpuUsage();
  let since = performance.now();
  // Each line on stdin asks for the share of a core since the one before.
  void (async () => {
    for await (const _ of console) {
      const { user, system } = process.cpuUsage(before);
      console.log(String((user + system) / 1000 / (performance.now() - since)));
      before = process.cpuUsage();
      since = performance.now();
    }
  })();
}

const BODIES: Readonly<Record<string, object>> = {
  "/v1/chat/completions": { messages: [{ role: "user", content: "x" }], max_tokens: rate * seconds * 2 },
  "/v1/completions": { prompt: "x", max_tokens: rate * seconds * 2 },
  "/v1/responses": { input: "x", max_output_tokens: rate * seconds * 2, store: false },
  "/v1/messages": { messages: [{ role: "user", content: "x" }], max_tokens: rate * seconds * 2 },
};

async function measure(): Promise<void> {
  const child = Bun.spawn([process.execPath, import.meta.path, "--serve", "--rate", options.rate], {
    stdin: "pipe",
    stdout: "pipe",
  });
  const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const answer = async () => ((await lines.read()).value ?? "").trim();
  const url = await answer();
  const share = async () => {
    child.stdin.write("\n");
    child.stdin.flush();
    return Number(await answer());
  };
  await share();
  await Bun.sleep(1_000);
  const idle = await share();

  const latencies: number[] = [];
  const abort = new AbortController();
  let measuring = false;
  const readers = Array.from({ length: streams }, async () => {
    const body = JSON.stringify({ ...BODIES[options.path], stream: true });
    const response = await fetch(url + options.path, { method: "POST", body, signal: abort.signal });
    const decoder = new TextDecoder();
    try {
      for await (const chunk of response.body!) {
        const arrived = now();
        if (!measuring) continue;
        const text = decoder.decode(chunk);
        for (const [, stamp] of text.matchAll(/"(?:content|text|delta)":"(\d+\.\d+) ?/g))
          latencies.push(arrived - Number(stamp));
      }
    } catch {
      // Aborted: the measurement is over.
    }
  });
  await Bun.sleep(1_500);
  await share();
  measuring = true;
  await Bun.sleep(seconds * 1000);
  measuring = false;
  const busy = await share();
  abort.abort();
  await Promise.all(readers);

  const started = performance.now();
  const requests = 300;
  await share();
  for (let index = 0; index < requests; index += 1) {
    const body = JSON.stringify({
      ...BODIES[options.path],
      max_tokens: 1,
      max_output_tokens: 1,
      prompt: "x",
    });
    await (await fetch(`${url}/tokenize`, { method: "POST", body: JSON.stringify({ prompt: body }) })).text();
  }
  const perRequestMs = (performance.now() - started) / requests;
  const perRequestCpuMs = ((await share()) * (performance.now() - started)) / requests;
  child.kill();
  latencies.sort((a, b) => a - b);
  const at = (share: number) => Number(latencies[Math.floor((latencies.length - 1) * share)]?.toFixed(3));
  console.log(
    JSON.stringify({
      path: options.path,
      streams,
      tokens_per_s_per_stream: rate,
      tokens: latencies.length,
      idle_core_share: Number(idle.toFixed(4)),
      core_share: Number(busy.toFixed(4)),
      cpu_us_per_token: Number(((busy * seconds * 1e6) / latencies.length).toFixed(1)),
      latency_ms: { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) },
      request_ms: Number(perRequestMs.toFixed(3)),
      request_cpu_ms: Number(perRequestCpuMs.toFixed(3)),
    }),
  );
}

if (options.serve) serve();
else await measure();
