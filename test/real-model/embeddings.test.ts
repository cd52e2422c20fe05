/** Embeddings of the default model behind the real server: what they tell apart, and what they do not depend on. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import OpenAI from "openai";
import { eventually } from "../server/harness.ts";
import { type Served, serve } from "./served.ts";

const PAIRS = [
  ["The cat sleeps on the warm sofa.", "A cat is sleeping on the comfortable couch."],
  ["Interest rates were raised by the central bank.", "The central bank increased its interest rates."],
  ["She repaired the engine of her old car.", "She fixed the motor of her old automobile."],
] as const;
const LONG = "Rain fell on the quiet harbour while the boats waited. ".repeat(60);

let served: Served;
let client: OpenAI;

beforeAll(async () => {
  served = await serve();
  client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: "none", maxRetries: 0 });
}, 180_000);

afterAll(async () => {
  expect(await served.stop()).toBe(0);
});

type Pooling = "last" | "mean";

async function embed(input: string | readonly string[], pooling: Pooling = "last") {
  const body = { model: "default", input: typeof input === "string" ? input : [...input], pooling };
  const { data, usage } = await client.embeddings.create(body);
  return { vectors: data.map(({ embedding }) => [...embedding]), usage };
}

const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, index) => sum + value * b[index]!, 0);

async function metricsText(): Promise<string> {
  return await (await fetch(`${served.url}/metrics`)).text();
}

for (const pooling of ["last", "mean"] as const) {
  test(`sentences that mean the same are closer than others, pooled by ${pooling}`, async () => {
    const { vectors, usage } = await embed(PAIRS.flat(), pooling);
    expect(new Set(vectors.map(({ length }) => length))).toEqual(new Set([576]));
    for (const vector of vectors) expect(dot(vector, vector)).toBeCloseTo(1, 5);
    expect(usage.prompt_tokens).toBeGreaterThan(PAIRS.flat().length * 5);
    expect(usage.total_tokens).toBe(usage.prompt_tokens);
    vectors.forEach((vector, index) => {
      const likeness = vectors.map((other, at) => (at === index ? -1 : dot(vector, other)));
      expect(likeness.indexOf(Math.max(...likeness))).toBe(index ^ 1);
    });
  }, 30_000);

  test(`a batch beside generation is what each gives alone, bit for bit, pooled by ${pooling}`, async () => {
    const inputs = ["Hi", LONG, PAIRS[0][0], LONG.slice(0, 700), PAIRS[1][1], "."];
    const alone: number[][] = [];
    let tokens = 0;
    for (const input of inputs) {
      const { vectors, usage } = await embed(input, pooling);
      alone.push(vectors[0]!);
      tokens += usage.prompt_tokens;
    }
    const question = {
      model: "default",
      messages: [{ role: "user" as const, content: "What is the capital of France?" }],
      temperature: 0,
      max_tokens: 32,
    };
    const quiet = await client.chat.completions.create(question);
    const [batch, busy] = await Promise.all([
      embed(inputs, pooling),
      client.chat.completions.create(question),
    ]);
    expect(batch.vectors).toEqual(alone);
    expect(batch.usage.prompt_tokens).toBe(tokens);
    expect(busy.choices[0]?.message.content).toBe(quiet.choices[0]!.message.content);
  }, 60_000);
}

test("a client that leaves frees the engine", async () => {
  const abort = new AbortController();
  const body = { model: "default", input: Array.from({ length: 64 }, (_, index) => `${index} ${LONG}`) };
  const outcome = client.embeddings.create(body, { signal: abort.signal }).then(
    () => "answered",
    (error: unknown) => error,
  );
  let metrics = "";
  const running = () => Number(/^mistralrs_sequences_running\S* (\d+)/m.exec(metrics)?.[1] ?? Number.NaN);
  const look = setInterval(async () => {
    metrics = await metricsText();
  }, 20);
  try {
    await eventually("inputs run", () => running() > 0, 10_000);
    abort.abort();
    expect(await outcome).toBeInstanceOf(OpenAI.APIUserAbortError);
    await eventually("nothing runs", () => running() === 0, 10_000);
  } finally {
    clearInterval(look);
  }
}, 30_000);
