/** /metrics as Prometheus reads it, and /ready beside /health. */

import { expect, test } from "bun:test";
import { ProcessEngine } from "../../src/engine/engine-client.ts";
import { Metrics } from "../../src/server/metrics.ts";
import { ModelRegistry } from "../../src/server/model-registry.ts";
import { fakeEngineOptions } from "../engine/fake-model.ts";
import { collect, request } from "../engine/requests.ts";
import { ByteTokenizer } from "./byte-tokenizer.ts";
import { errorOf, harness } from "./harness.ts";

/** Samples by name and labels, each of which must be well-formed and be told with its type. */
function parse(text: string): Map<string, number> {
  const samples = new Map<string, number>();
  const types = new Map<string, string>();
  for (const line of text.split("\n").filter((each) => each !== "")) {
    const type = /^# TYPE (\w+) (counter|gauge|histogram)$/.exec(line);
    if (type !== null) types.set(type[1]!, type[2]!);
    if (line.startsWith("#")) continue;
    const sample = /^((\w+)(?:\{[^}]*\})?) (\S+)$/.exec(line);
    if (sample === null) throw new Error(`no sample: ${line}`);
    const name = sample[2]!.replace(/_(bucket|sum|count)$/, "");
    expect(types.get(name) ?? types.get(sample[2]!)).toBeDefined();
    samples.set(sample[1]!, Number(sample[3]));
  }
  return samples;
}

async function metricsOf(models: ModelRegistry): Promise<Map<string, number>> {
  return parse(await new Metrics(models).registry.metrics());
}

test("every engine figure has its reference name, and follows what a live engine did", async () => {
  const engine = await ProcessEngine.start({
    ...fakeEngineOptions("stepMs=1"),
    restartDelayMs: 10,
    queuedRequestsMax: 0,
    log: () => {},
  });
  try {
    const tokenizer = new ByteTokenizer();
    const model = { id: "m", created: 0, engine, tokenizer, generationDefaults: {}, eosTokens: [] };
    const models = new ModelRegistry([model]);
    expect((await metricsOf(models)).get("mistralrs_tokens_processed_total")).toBe(0);

    const prompt = Int32Array.from({ length: 20 }, (_, index) => index);
    await collect(engine.generate(request(0, { promptTokens: prompt })));
    await collect(engine.generate(request(0, { promptTokens: prompt })));
    await collect(engine.generate(request(0, { promptTokens: new Int32Array(2000) })));
    const open = Array.from({ length: 10 }, () => collect(engine.generate(request(0, { maxTokens: 100 }))));
    while (engine.statistics().running < 8) await Bun.sleep(1);

    const busy = await metricsOf(models);
    expect(busy.get("mistralrs_sequences_running")).toBe(8);
    expect(busy.get("mistralrs_sequences_waiting")).toBe(0);
    expect(busy.get("mistralrs_requests_pending_admission")).toBe(0);
    expect(busy.get("mistralrs_sequences_capacity")).toBe(8);
    expect(busy.get("mistralrs_kv_cache_blocks_used")).toBeGreaterThanOrEqual(8);
    expect(busy.get("mistralrs_kv_cache_blocks_total")).toBe(256);
    expect(busy.get('mistralrs_sequences_rejected_total{reason="queue_full"}')).toBe(2);
    expect(busy.get('mistralrs_sequences_rejected_total{reason="over_total_capacity"}')).toBe(1);
    expect(busy.get("mistralrs_engine_silent_seconds")).toBeLessThan(1);
    await Promise.all(open);

    const idle = await metricsOf(models);
    expect(idle.get("mistralrs_sequences_running")).toBe(0);
    expect(idle.get("mistralrs_kv_cache_blocks_used")).toBe(0);
    expect(idle.get('mistralrs_sequences_completed_total{reason="length"}')).toBe(10);
    expect(idle.get('mistralrs_sequences_completed_total{reason="canceled"}')).toBe(0);
    expect(idle.get("mistralrs_prefix_cache_lookups_total")).toBe(2);
    expect(idle.get("mistralrs_prefix_cache_hits_total")).toBe(1);
    expect(idle.get("mistralrs_prefix_cache_evictions_total")).toBe(0);
    expect(idle.get("mistralrs_paged_preemptions_total")).toBe(0);
    // 20 and 4 prompt tokens, twice 8 generated; then 8 prompts of 3 tokens and 100 tokens each.
    expect(idle.get("mistralrs_tokens_processed_total")).toBe(20 + 4 + 16 + 8 * 103);

    process.kill(engine.pid!, "SIGKILL");
    while (engine.statistics().restarts === 0) await Bun.sleep(1);
    const restarting = await metricsOf(models);
    expect(restarting.get("mistralrs_engines_ready")).toBe(0);
    while (engine.state !== "ready") await Bun.sleep(1);
    const back = await metricsOf(models);
    expect(back.get("mistralrs_engine_restarts_total")).toBe(1);
    expect(back.get("mistralrs_engines_ready")).toBe(1);
    expect(back.get("mistralrs_tokens_processed_total")).toBe(20 + 4 + 16 + 8 * 103);
  } finally {
    await engine.close();
  }
});

test("the route answers in Prometheus's format, or 503 when it is switched off", async () => {
  const made = harness();
  const response = await made.app.handle(new Request("http://localhost/metrics"));
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/plain");
  expect(parse(await response.text()).get("mistralrs_sequences_capacity")).toBe(16);
  const off = harness({ settings: { metrics: false } });
  expect(await errorOf(await off.app.handle(new Request("http://localhost/metrics")))).toMatchObject({
    status: 503,
    error: { code: "metrics_disabled" },
  });
});

test("/health tells that the process lives, /ready whether it is of use", async () => {
  const { app, engine, lifecycle } = harness();
  const status = async (path: string): Promise<number> =>
    (await app.handle(new Request(`http://localhost${path}`))).status;
  expect([await status("/health"), await status("/ready")]).toEqual([200, 200]);
  engine.state = "starting";
  expect([await status("/health"), await status("/ready")]).toEqual([200, 503]);
  engine.state = "ready";
  lifecycle.drain();
  expect([await status("/health"), await status("/ready")]).toEqual([200, 503]);
});
