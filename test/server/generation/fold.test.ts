import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import type { ChatCompletionChunk, CompletionChunk } from "../../../src/server/openai/responses.ts";
import {
  CHAT,
  COMPLETIONS,
  chat,
  complete,
  harness,
  minimalBody,
  post,
  readEvents,
  says,
  TEMPLATE,
} from "../harness.ts";

/** A model that thinks, and one that does not, given the same words. */
const SOURCES = ["plain", "<think></think>"];
const PIECES = [
  "<think>",
  "</think>",
  "a",
  "\u00e9",
  "\u{1f600}",
  "ST",
  "OP",
  "STOP",
  " the",
  " world",
  "\n\n",
  "\u4e2d",
  "x",
];

/** What a request may say and what the model then does, so that every way to end and to hold back occurs. */
const fixture = fc.record({
  pieces: fc.array(fc.constantFrom(...PIECES), { maxLength: 24 }),
  tokensPerStep: fc.integer({ min: 1, max: 5 }),
  cachedTokens: fc.integer({ min: 0, max: 2 }),
  fields: fc.record({
    n: fc.integer({ min: 1, max: 3 }),
    stop: fc.subarray(["STOP", "\u{1f600}", "OP t", "\n"]),
    max_tokens: fc.integer({ min: 1, max: 40 }),
    seed: fc.integer({ min: 0, max: 9 }),
  }),
  logprobs: fc.boolean(),
  echo: fc.boolean(),
  source: fc.constantFrom(...SOURCES),
});
type Fixture = typeof fixture extends fc.Arbitrary<infer Value> ? Value : never;

/** Each choice of a fixture says something of its own. */
function made({ pieces, tokensPerStep, cachedTokens, source }: Fixture) {
  return harness({
    chatTemplate: { ...TEMPLATE, source },
    script: ({ sampling }) =>
      says([...pieces.slice(Number(sampling.seed) % 4), "."].join(""), { tokensPerStep, cachedTokens }),
  });
}

const STREAM = { stream: true, stream_options: { include_usage: true } };

function foldChat(chunks: readonly ChatCompletionChunk[], n: number) {
  const choices = Array.from({ length: n }, () => ({
    content: "",
    reasoning: "",
    logprobs: [] as unknown[],
    reason: "",
  }));
  for (const { choices: parts } of chunks) {
    for (const { index, delta, logprobs, finish_reason } of parts) {
      const choice = choices[index]!;
      expect(choice.reason).toBe("");
      choice.content += delta.content ?? "";
      choice.reasoning += delta.reasoning_content ?? "";
      choice.logprobs.push(...(logprobs?.content ?? []));
      choice.reason = finish_reason ?? "";
    }
  }
  return { choices, usage: chunks.at(-1)?.usage };
}

function foldCompletion(chunks: readonly CompletionChunk[], n: number) {
  const choices = Array.from({ length: n }, () => ({ text: "", tokens: [] as unknown[], reason: "" }));
  for (const { choices: parts } of chunks) {
    for (const { index, text, logprobs, finish_reason } of parts) {
      const choice = choices[index]!;
      expect(choice.reason).toBe("");
      choice.text += text;
      for (const [position, token] of (logprobs?.tokens ?? []).entries()) {
        choice.tokens.push([token, logprobs!.token_logprobs[position], logprobs!.text_offset[position]]);
      }
      choice.reason = finish_reason ?? "";
    }
  }
  return { choices, usage: chunks.at(-1)?.usage };
}

const SETTINGS = { numRuns: 60, seed: 20_240_611 };

describe("the stream, put together, is the whole answer", () => {
  test("of a chat", async () => {
    const property = fc.asyncProperty(fixture, async (given) => {
      const { app } = made(given);
      const fields = { ...given.fields, ...(given.logprobs ? { logprobs: true, top_logprobs: 2 } : {}) };
      const whole = await chat(app, fields);
      const { chunks } = await readEvents(
        await post(app, CHAT, { ...minimalBody(CHAT), ...fields, ...STREAM }),
      );
      expect(foldChat(chunks, given.fields.n)).toEqual({
        choices: whole.choices.map(({ message, logprobs, finish_reason }) => ({
          content: message.content,
          reasoning: message.reasoning_content ?? "",
          logprobs: logprobs?.content ?? [],
          reason: finish_reason,
        })),
        usage: whole.usage,
      });
    });
    await fc.assert(property, SETTINGS);
  });

  test("of a completion, whose tokens also stand where they say", async () => {
    const property = fc.asyncProperty(fixture, async (given) => {
      const { app } = made(given);
      const fields = { ...given.fields, echo: given.echo, ...(given.logprobs ? { logprobs: 1 } : {}) };
      const whole = await complete(app, fields);
      const body = { ...minimalBody(COMPLETIONS), ...fields, ...STREAM };
      const { chunks } = await readEvents<CompletionChunk>(await post(app, COMPLETIONS, body));
      expect(foldCompletion(chunks, given.fields.n)).toEqual({
        choices: whole.choices.map(({ text, logprobs, finish_reason }) => ({
          text,
          tokens: (logprobs?.tokens ?? []).map((token, position) => [
            token,
            logprobs!.token_logprobs[position],
            logprobs!.text_offset[position],
          ]),
          reason: finish_reason,
        })),
        usage: whole.usage,
      });
      for (const { text, logprobs } of whole.choices) {
        for (const [position, token] of (logprobs?.tokens ?? []).entries()) {
          if (token.startsWith("bytes:")) continue;
          const rest = text.slice(logprobs!.text_offset[position]);
          // A stop string may cut a token's text, but never what comes before it.
          expect(token.startsWith(rest.slice(0, token.length))).toBe(true);
        }
      }
    });
    await fc.assert(property, SETTINGS);
  });
});
