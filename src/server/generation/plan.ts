/**
 * From a text request and a model to the engine requests it needs: limits checked against this model, defaults
 * filled in, seeds drawn. Everything that can be refused before the engine sees it is refused here.
 */

import type { EngineInfo, GenerateRequest, SamplingParameters } from "../../engine/messages.ts";
import { MistralError } from "../../errors.ts";
import type { Tokenizer } from "../../text/types.ts";
import { LIMITS } from "../limits.ts";
import type { ServedModel } from "../served-model.ts";
import type { SamplingOverrides, TextPrompt, TextRequest } from "./request.ts";

export interface PlannedChoice {
  readonly index: number;
  /** Several choices of one prompt; its tokens are counted once, in the first of them. */
  readonly firstOfPrompt: boolean;
  readonly request: Omit<GenerateRequest, "id">;
  readonly prompt: TextPrompt;
}

export interface TextPlan {
  readonly model: ServedModel;
  readonly choices: readonly PlannedChoice[];
  readonly stop: readonly string[];
  readonly logprobs: number;
  readonly echo: boolean;
}

/** Throws invalid_request or context_length_exceeded with the numbers that matter. */
export function planText(model: ServedModel, request: TextRequest): TextPlan {
  const { engine, tokenizer } = model;
  checkChoiceCount(request);
  if (request.logprobs > engine.info.topLogprobsMax) {
    throw new MistralError(
      "invalid_request",
      `${request.logprobs} alternatives per token were asked for; this engine gives at most ${engine.info.topLogprobsMax}.`,
      { parameter: "logprobs" },
    );
  }
  for (const { token } of request.sampling.logitBias) checkToken(token, tokenizer, "logit_bias");

  const seed = request.sampling.seed === undefined ? randomSeed() : BigInt(request.sampling.seed);
  const choices: PlannedChoice[] = [];
  for (const prompt of request.prompts) {
    checkPrompt(prompt, request.promptField, tokenizer);
    const maxTokens = maxTokensFor(prompt, request, engine.info);
    for (let answer = 0; answer < request.n; answer += 1) {
      choices.push({
        index: choices.length,
        firstOfPrompt: answer === 0,
        prompt,
        request: {
          promptTokens: prompt.tokens,
          maxTokens,
          stopTokens: request.ignoreEos ? [] : model.eosTokens,
          sampling: samplingFor(model, request, BigInt.asUintN(64, seed + BigInt(answer))),
          promptLogprobs: request.echo ? request.logprobs : -1,
        },
      });
    }
  }
  return { model, choices, stop: request.stop, logprobs: request.logprobs, echo: request.echo };
}

function checkChoiceCount(request: TextRequest): void {
  const count = request.prompts.length * request.n;
  if (count <= LIMITS.choices) return;
  throw new MistralError(
    "invalid_request",
    `${request.prompts.length} prompts with n = ${request.n} ask for ${count} answers; the limit is ${LIMITS.choices}.`,
    { parameter: "n" },
  );
}

function checkPrompt(prompt: TextPrompt, field: string, tokenizer: Tokenizer): void {
  if (prompt.tokens.length === 0) {
    throw new MistralError("invalid_request", "The prompt has no tokens; give at least one.", {
      parameter: field,
    });
  }
  if (prompt.text !== undefined) return;
  for (const token of prompt.tokens) checkToken(token, tokenizer, field);
}

function checkToken(token: number, tokenizer: Tokenizer, parameter: string): void {
  if (token >= 0 && token < tokenizer.vocabularySize) return;
  throw new MistralError(
    "invalid_request",
    `Token id ${token} in ${parameter} is not in this model's vocabulary (0 to ${tokenizer.vocabularySize - 1}).`,
    { parameter },
  );
}

/** As many tokens as were asked for and as the context, and the KV pool behind it, can hold after this prompt. */
function maxTokensFor(prompt: TextPrompt, request: TextRequest, info: EngineInfo): number {
  const asked = request.maxTokens;
  const capacity = Math.min(info.contextLength, info.blockSize * info.blockCount);
  const room = capacity - prompt.tokens.length;
  if (room < 0 || (room === 0 && asked !== 0)) {
    throw new MistralError(
      "context_length_exceeded",
      `The prompt has ${prompt.tokens.length} tokens; this model holds ${capacity} for prompt and answer together. Shorten the prompt.`,
      { parameter: request.promptField },
    );
  }
  return asked === undefined ? room : Math.min(asked, room);
}

function samplingFor(model: ServedModel, request: TextRequest, seed: bigint): SamplingParameters {
  const defaults = model.generationDefaults;
  const asked: SamplingOverrides = request.sampling;
  const topP = asked.topP ?? defaults.topP ?? 1;
  return {
    temperature: asked.temperature ?? defaults.temperature ?? 1,
    // A nucleus of nothing still holds the most likely token.
    topK: topP === 0 ? 1 : (asked.topK ?? defaults.topK ?? 0),
    topP: topP === 0 ? 1 : topP,
    minP: asked.minP ?? defaults.minP ?? 0,
    seed,
    frequencyPenalty: asked.frequencyPenalty ?? 0,
    presencePenalty: asked.presencePenalty ?? 0,
    repetitionPenalty: asked.repetitionPenalty ?? defaults.repetitionPenalty ?? 1,
    logitBias: asked.logitBias,
    logprobs: request.logprobs,
  };
}

function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]!;
}
