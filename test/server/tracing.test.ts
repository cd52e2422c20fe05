import { afterEach, expect, test } from "bun:test";
import { openTracing, type Tracing } from "../../src/server/tracing.ts";
import { CHAT, COMPLETIONS, get, type Harness, harness, post, says } from "./harness.ts";

interface SentSpan {
  readonly traceId: string;
  readonly spanId: string;
  readonly parentSpanId?: string;
  readonly name: string;
  readonly kind: number;
  readonly startTimeUnixNano: string;
  readonly endTimeUnixNano: string;
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[];
  readonly status: { readonly code?: number; readonly message?: string };
}
interface Batch {
  readonly resourceSpans: readonly {
    readonly resource: { readonly attributes: SentSpan["attributes"] };
    readonly scopeSpans: readonly { readonly spans: readonly SentSpan[] }[];
  }[];
}

/** A collector on the loopback interface that keeps what it is sent. */
class Collector {
  readonly batches: Batch[] = [];
  readonly headers: Headers[] = [];
  readonly paths: string[] = [];
  status = 200;
  readonly #server = Bun.serve({
    hostname: "127.0.0.1",
    port: 0,
    fetch: async (request) => {
      this.paths.push(new URL(request.url).pathname);
      this.headers.push(request.headers);
      const body = (await request.json()) as Batch;
      if (this.status === 200) this.batches.push(body);
      return new Response("{}", { status: this.status, headers: { "content-type": "application/json" } });
    },
  });

  get endpoint(): string {
    return `http://127.0.0.1:${this.#server.port}`;
  }

  get spans(): SentSpan[] {
    return this.batches.flatMap(({ resourceSpans }) =>
      resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans)),
    );
  }

  stop(): Promise<void> {
    return this.#server.stop(true);
  }
}

let collector = new Collector();
afterEach(async () => {
  await collector.stop();
  collector = new Collector();
});

/** A served model whose requests are traced; `close` sends what there is. */
function traced(script: ReturnType<typeof says>, endpoint = collector.endpoint) {
  const warnings: string[] = [];
  const tracing: Tracing = openTracing({
    endpoint,
    headers: { "x-key": "secret" },
    serviceName: "the-service",
    warn: (message) => warnings.push(message),
  });
  const made: Harness = harness({ script: () => script, settings: { tracing: tracing.watcher } });
  const close = async () => {
    await Bun.sleep(20);
    await tracing.close();
  };
  return { app: made.app, warnings, close };
}

function attributesOf({ attributes }: Pick<SentSpan, "attributes">): Record<string, unknown> {
  return Object.fromEntries(attributes.map(({ key, value }) => [key, Object.values(value)[0]]));
}

const lengthMs = ({ startTimeUnixNano, endTimeUnixNano }: SentSpan): number =>
  Number(BigInt(endTimeUnixNano) - BigInt(startTimeUnixNano)) / 1e6;

test("a streamed request is a span with one each for waiting, prefill and decoding", async () => {
  const startedMs = Date.now();
  const { app, close } = traced(
    says("Hello", { queueSeconds: 0.002, prefillDelayMs: 60, stepDelayMs: 10, cachedTokens: 2 }),
  );
  const answer = await post(app, CHAT, { messages: [{ role: "user", content: "Hi" }], stream: true });
  await answer.text();
  await close();

  expect(collector.paths).toEqual(["/v1/traces"]);
  expect(collector.headers[0]?.get("x-key")).toBe("secret");
  const resource = collector.batches[0]!.resourceSpans[0]!.resource;
  expect(attributesOf(resource)["service.name"]).toBe("the-service");
  const { spans } = collector;
  const named = (name: string): SentSpan => {
    const found = spans.filter((span) => span.name === name);
    expect(found).toHaveLength(1);
    return found[0]!;
  };
  const root = named(`POST ${CHAT}`);
  expect(root.parentSpanId ?? "").toBe("");
  expect(root.kind).toBe(2);
  expect(root.status.code ?? 0).toBe(0);
  expect(attributesOf(root)).toMatchObject({
    "http.request.method": "POST",
    "http.response.status_code": 200,
    "http.route": CHAT,
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "test/scripted",
    "gen_ai.request.stream": true,
    "gen_ai.usage.output_tokens": 5,
    "gen_ai.usage.cache_read.input_tokens": 2,
  });
  expect(attributesOf(root)["gen_ai.usage.input_tokens"]).toBeGreaterThan(10);
  expect(JSON.stringify(attributesOf(root))).toContain(answer.headers.get("x-request-id") ?? "no id");
  // It began when the request did, on the clock of the day.
  const beginMs = Number(BigInt(root.startTimeUnixNano) / 1_000_000n);
  expect(beginMs).toBeGreaterThan(startedMs - 50);
  expect(beginMs).toBeLessThan(Date.now());

  const phases = ["queue", "prefill", "decode"].map(named);
  for (const phase of phases) {
    expect([phase.traceId, phase.parentSpanId]).toEqual([root.traceId, root.spanId]);
    expect(BigInt(phase.startTimeUnixNano)).toBeGreaterThanOrEqual(BigInt(root.startTimeUnixNano));
    expect(BigInt(phase.endTimeUnixNano)).toBeLessThanOrEqual(BigInt(root.endTimeUnixNano));
  }
  const [queue, prefill, decode] = phases as [SentSpan, SentSpan, SentSpan];
  expect(lengthMs(queue)).toBeCloseTo(2, 1);
  expect(prefill.startTimeUnixNano).toBe(queue.endTimeUnixNano);
  expect(decode.startTimeUnixNano).toBe(prefill.endTimeUnixNano);
  expect(lengthMs(prefill)).toBeGreaterThan(55);
  expect(lengthMs(decode)).toBeGreaterThan(30);
  expect(spans).toHaveLength(4);
  // No text of the conversation.
  expect(JSON.stringify(collector.batches)).not.toContain("Hello");
});

test("the caller's trace is continued, not sampled where it is not, and a malformed one is left alone", async () => {
  const { app, close } = traced(says("Hi"));
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const parent = "b7ad6b7169203331";
  const ask = async (traceparent: string) => {
    const headers = { traceparent, tracestate: "vendor=1" };
    await (await post(app, COMPLETIONS, { prompt: "Hi" }, { headers })).text();
  };
  await ask(`00-${traceId}-${parent}-01`);
  await ask(`00-${"1".repeat(32)}-${parent}-00`);
  await ask("00-short-01");
  await ask(`00-${"0".repeat(32)}-${parent}-01`);
  await close();
  const roots = collector.spans.filter(({ name }) => name === `POST ${COMPLETIONS}`);
  expect(roots).toHaveLength(3);
  expect(roots[0]).toMatchObject({ traceId, parentSpanId: parent, traceState: "vendor=1" });
  for (const root of roots.slice(1)) {
    expect(root.parentSpanId ?? "").toBe("");
    expect(root.traceId).not.toMatch(/^(0|1)\1+$/);
  }
});

test("failures of the server are errors, those of the client are not; routine is left out", async () => {
  const failure = { afterTokens: 2, code: "engine_failed" as const, message: "the device is gone" };
  const { app, close } = traced(says("Hello", { failure }));
  await (await post(app, COMPLETIONS, { prompt: "Hi" })).text();
  await (await post(app, COMPLETIONS, { prompt: "Hi", model: "made-up" })).text();
  await (await get(app, "/health")).text();
  await (await get(app, "/metrics")).text();
  await close();
  const roots = collector.spans.filter(({ kind }) => kind === 2);
  expect(roots.map((root) => [root.status.code ?? 0, attributesOf(root)["error.type"]])).toEqual([
    [2, "503"],
    [0, "404"],
  ]);
  expect(roots[0]!.status.message).toContain("the device is gone");
});

test("a collector that takes nothing costs one warning and no request", async () => {
  collector.status = 400;
  const { app, warnings, close } = traced(says("Hi"));
  const answer = await post(app, COMPLETIONS, { prompt: "Hi" });
  expect(answer.status).toBe(200);
  await answer.text();
  await close();
  expect(collector.batches).toEqual([]);
  expect(warnings).toHaveLength(1);
  expect(warnings[0]).toStartWith(`traces cannot be sent to ${collector.endpoint}/v1/traces: `);
});

test("a collector that is not there does not keep a server from stopping", async () => {
  const { endpoint } = collector;
  await collector.stop();
  const { app, close } = traced(says("Hi"), endpoint);
  await (await post(app, COMPLETIONS, { prompt: "Hi" })).text();
  const startedMs = performance.now();
  await close();
  expect(performance.now() - startedMs).toBeLessThan(3_000);
});
