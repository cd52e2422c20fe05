/**
 * From a text request and a model to the engine requests it needs: limits checked against this model, defaults
 * filled in, seeds drawn. Everything that can be refused before the engine sees it is refused here.
 */

import type {
  DryParameters,
  EngineInfo,
  GenerateRequest,
  SamplingParameters,
} from "../../engine/messages.ts";
import { MistralError } from "../../errors.ts";
import type { Tokenizer } from "../../text/types.ts";
import { LIMITS } from "../limits.ts";
import type { ServedModel } from "../served-model.ts";
import type { ReasoningStart, SamplingOverrides, TextPrompt, TextRequest } from "./request.ts";

/** Far below any logit, and finite: a model that may say nothing else still says something. */
const SUPPRESSING_BIAS = -1e9;

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
  /** -1: tokens are reported without log-probabilities; n >= 0: with theirs and the n most likely ones'. */
  readonly logprobs: number;
  readonly echo: boolean;
  /** Whether the echoed prompt comes with log-probabilities, which the engine reports before the first token. */
  readonly echoScored: boolean;
  readonly continues: boolean;
  readonly reasoning: ReasoningStart | undefined;
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

  const bestOf = request.bestOf ?? request.n;
  // Candidates are compared by the log-probabilities of their tokens.
  const logprobs = bestOf > request.n ? Math.max(0, request.logprobs) : request.logprobs;
  const dry = dryFor(request, tokenizer);
  const { seed: asked } = request.sampling;
  const seed = asked === undefined ? (model.drawSeed ?? randomSeed)() : BigInt(asked);
  const choices: PlannedChoice[] = [];
  for (const prompt of request.prompts) {
    checkPrompt(prompt, request.promptField, tokenizer);
    const maxTokens = maxTokensFor(prompt, request, engine.info);
    for (let answer = 0; answer < bestOf; answer += 1) {
      choices.push({
        index: choices.length,
        firstOfPrompt: answer === 0,
        prompt,
        request: {
          promptTokens: prompt.tokens,
          maxTokens,
          stopTokens: request.ignoreEos ? [] : model.eosTokens,
          sampling: {
            ...samplingFor(model, request, BigInt.asUintN(64, seed + BigInt(answer))),
            ...(dry === undefined ? {} : { dry }),
            logprobs,
          },
          promptLogprobs: request.echo ? request.logprobs : -1,
          ...(request.priority === undefined ? {} : { priority: request.priority }),
          ...(request.cacheSalt === undefined ? {} : { cacheSalt: request.cacheSalt }),
        },
      });
    }
  }
  const { stop, echo, continues = false, reasoning } = request;
  const echoScored = echo && request.logprobs >= 0;
  return { model, choices, stop, logprobs, echo, echoScored, continues, reasoning };
}

function checkChoiceCount(request: TextRequest): void {
  const { n, bestOf = n, prompts } = request;
  const count = prompts.length * bestOf;
  if (count <= LIMITS.choices) return;
  throw new MistralError(
    "invalid_request",
    `${prompts.length} prompts with ${bestOf > n ? "best_of" : "n"} = ${bestOf} ask for ${count} answers; the limit is ${LIMITS.choices}.`,
    { parameter: bestOf > n ? "best_of" : "n" },
  );
}

/** Throws invalid_request for a prompt without tokens, or with some that this model does not have. */
export function checkPrompt(prompt: TextPrompt, field: string, tokenizer: Tokenizer): void {
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

/** Most tokens that prompt and answer have together; block 0 of the KV pool is never handed out. */
export function tokenCapacity({ contextLength, blockSize, blockCount }: EngineInfo): number {
  return Math.min(contextLength, blockSize * (blockCount - 1));
}

/** As many tokens as were asked for and as the context, and the KV pool behind it, can hold after this prompt. */
function maxTokensFor(prompt: TextPrompt, request: TextRequest, info: EngineInfo): number {
  const asked = request.maxTokens;
  const capacity = tokenCapacity(info);
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

/** A breaker is the token that its text ends in when it follows other text. */
function dryFor({ sampling }: TextRequest, tokenizer: Tokenizer): DryParameters | undefined {
  if (sampling.dry === undefined) return undefined;
  const { breakers, ...rest } = sampling.dry;
  const tokens = breakers.map((text) => tokenizer.encode(`a${text}`, { addSpecialTokens: false }).at(-1));
  return { ...rest, breakers: [...new Set(tokens.filter((token) => token !== undefined))] };
}

function samplingFor(
  model: ServedModel,
  request: TextRequest,
  seed: bigint,
): Omit<SamplingParameters, "logprobs" | "dry"> {
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
    logitBias: suppressed(asked.logitBias, defaults.suppressTokens ?? [], model.tokenizer),
  };
}

/** Tokens that the model's authors want never to be drawn are biased away, whatever the request adds. */
function suppressed(
  asked: SamplingOverrides["logitBias"],
  tokens: readonly number[],
  tokenizer: Tokenizer,
): SamplingOverrides["logitBias"] {
  const known = tokens.filter((token) => token < tokenizer.vocabularySize);
  if (known.length === 0) return asked;
  return [...asked, ...known.map((token) => ({ token, bias: SUPPRESSING_BIAS }))];
}

function randomSeed(): bigint {
  return crypto.getRandomValues(new BigUint64Array(1))[0]!;
}
