/** The default model behind the real server, asked through the official and the typed client. */

import { afterAll, beforeAll, expect, test } from "bun:test";
import OpenAI from "openai";
import { chatStream, createClient } from "../../src/client.ts";
import { type Served, serve } from "./served.ts";

const QUESTION = [{ role: "user" as const, content: "What is the capital of France?" }];
let served: Served;
let client: OpenAI;

beforeAll(async () => {
  served = await serve();
  client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: "none", maxRetries: 0 });
}, 180_000);

afterAll(async () => {
  expect(await served.stop()).toBe(0);
});

async function streamed(
  content: string,
  options: { readonly seed?: number; readonly temperature: number; readonly max_tokens: number },
): Promise<string> {
  const stream = await client.chat.completions.create({
    model: "default",
    messages: [{ role: "user", content }],
    stream: true,
    ...options,
  });
  let text = "";
  for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? "";
  return text;
}

test("the capital of France is Paris, streamed and whole", async () => {
  const whole = await client.chat.completions.create({
    model: "default",
    messages: QUESTION,
    temperature: 0,
    max_tokens: 32,
  });
  const text = whole.choices[0]!.message.content!;
  expect(text).toContain("Paris");
  expect(whole.choices[0]!.finish_reason).toBe("stop");
  expect(whole.usage!.total_tokens).toBe(whole.usage!.prompt_tokens + whole.usage!.completion_tokens);
  expect(await streamed(QUESTION[0]!.content, { temperature: 0, max_tokens: 32 })).toBe(text);
});

test("the typed client reads the same answer, whole and streamed", async () => {
  const eden = createClient(served.url);
  const body = { model: "default", messages: QUESTION, temperature: 0, max_tokens: 32 };
  const { data, error } = await eden.v1.chat.completions.post(body);
  if (error !== null || data instanceof Response) throw new Error("no answer");
  expect(data.choices[0]!.message.content).toContain("Paris");
  let text = "";
  for await (const chunk of chatStream(eden, body)) text += chunk.choices[0]?.delta.content ?? "";
  expect(text).toBe(data.choices[0]!.message.content!);
});

test("16 concurrent streams are each identical to the same request alone", async () => {
  const requests = Array.from({ length: 16 }, (_, index) => ({
    content: `Tell me ${index + 2} facts about the number ${index * 7}.${" Please.".repeat(index * 3)}`,
    // Half are greedy, half are drawn: both must not depend on their neighbours.
    options: { temperature: index % 2 === 0 ? 0 : 0.9, seed: 1000 + index, max_tokens: 24 + index },
  }));
  const alone: string[] = [];
  for (const { content, options } of requests) alone.push(await streamed(content, options));
  const together = await Promise.all(requests.map(({ content, options }) => streamed(content, options)));
  expect(together).toEqual(alone);
  expect(new Set(alone).size).toBe(16);
}, 120_000);

test("n drawn answers are reproduced by their seed and differ from each other", async () => {
  const draw = async () => {
    const answer = await client.chat.completions.create({
      model: "default",
      messages: [{ role: "user", content: "Invent a name for a ship." }],
      temperature: 1.2,
      seed: 7,
      n: 3,
      max_tokens: 16,
    });
    return answer.choices.map((choice) => choice.message.content);
  };
  const first = await draw();
  expect(new Set(first).size).toBe(3);
  expect(await draw()).toEqual(first);
});

test("log-probabilities are natural, sorted, and lead with the greedy token", async () => {
  const answer = await client.chat.completions.create({
    model: "default",
    messages: QUESTION,
    temperature: 0,
    max_tokens: 8,
    logprobs: true,
    top_logprobs: 5,
  });
  const content = answer.choices[0]!.logprobs!.content!;
  expect(content.map((entry) => entry.token).join("")).toBe(answer.choices[0]!.message.content!);
  for (const entry of content) {
    expect(entry.top_logprobs).toHaveLength(5);
    expect(entry.top_logprobs[0]!.token).toBe(entry.token);
    expect(entry.top_logprobs[0]!.logprob).toBe(entry.logprob);
    const mass = entry.top_logprobs.reduce((sum, { logprob }) => sum + Math.exp(logprob), 0);
    expect(mass).toBeGreaterThan(0.2);
    expect(mass).toBeLessThanOrEqual(1.00001);
    expect(Buffer.from(entry.bytes!).toString()).toBe(entry.token);
  }
});

test("echo scores a prompt: known facts are likelier than false ones", async () => {
  const score = async (prompt: string) => {
    const answer = await client.completions.create({
      model: "default",
      prompt,
      echo: true,
      logprobs: 1,
      max_tokens: 0,
      temperature: 0,
    });
    const { tokens, token_logprobs } = answer.choices[0]!.logprobs!;
    expect(tokens!.join("")).toBe(prompt);
    expect(token_logprobs![0]).toBeNull();
    return token_logprobs!.at(-1)!;
  };
  expect(await score("The capital of France is Paris")).toBeGreaterThan(
    await score("The capital of France is Madrid"),
  );
});

test("a stop string ends the text in front of it, and a limit says so", async () => {
  const ask = async (extra: { readonly stop?: string; readonly max_tokens: number }) =>
    (await client.chat.completions.create({ model: "default", messages: QUESTION, temperature: 0, ...extra }))
      .choices[0]!;
  const stopped = await ask({ stop: " France", max_tokens: 32 });
  expect(stopped.message.content).toBe("The capital of");
  expect(stopped.finish_reason).toBe("stop");
  expect((await ask({ max_tokens: 2 })).finish_reason).toBe("length");
});

test("a prompt beyond the context is refused with both numbers", async () => {
  const failure = await client.completions
    .create({ model: "default", prompt: "word ".repeat(9000), max_tokens: 1 })
    .then(
      () => undefined,
      (error: unknown) => error,
    );
  expect(failure).toBeInstanceOf(OpenAI.BadRequestError);
  expect((failure as InstanceType<typeof OpenAI.BadRequestError>).code).toBe("context_length_exceeded");
  expect(String(failure)).toMatch(/\b8192\b|8,192/);
});
