/**
 * The first admission gate: whether a request makes sense and could run alone in an empty pool. What passes can
 * always be served; what does not is answered at once and never queued.
 */

import { MistralError } from "../errors.ts";
import type { StepLimits } from "../models/step.ts";
import { adjustmentsWorstCase } from "./adjustments.ts";
import type { GenerateRequest } from "./messages.ts";

/** Most tokens, prompt and generated, a sequence of this model can have in this pool. */
export function sequenceTokensMax(limits: StepLimits): number {
  const blocks = Math.min(limits.blockCount - 1, limits.blocksPerSequenceMax);
  return Math.min(limits.contextLength, blocks * limits.blockSize);
}

/** Most tokens this request can reach. */
export function requestLengthMax(request: GenerateRequest, limits: StepLimits): number {
  return Math.min(request.promptTokens.length + request.maxTokens, sequenceTokensMax(limits));
}

/** Why the request cannot be served, or null. */
export function refusal(request: GenerateRequest, limits: StepLimits): MistralError | null {
  return (
    promptRefusal(request, limits) ??
    rangeRefusal(request, limits) ??
    numberRefusal(request) ??
    adjustmentRefusal(request, limits)
  );
}

/** Refuses limits under which a full batch could not take one step. */
export function checkLimits(limits: StepLimits): void {
  const { tokensMax, sequencesMax, rowsMax } = limits;
  if (tokensMax < sequencesMax) {
    throw new MistralError(
      "invalid_configuration",
      `a step of ${tokensMax} tokens cannot serve ${sequencesMax} sequences; raise --max-num-batched-tokens to at least ${sequencesMax} or lower --max-seqs`,
      { parameter: "max-num-batched-tokens" },
    );
  }
  if (rowsMax < sequencesMax) throw new Error(`rowsMax ${rowsMax} is below sequencesMax ${sequencesMax}`);
}

function promptRefusal(request: GenerateRequest, limits: StepLimits): MistralError | null {
  const { promptTokens, maxTokens } = request;
  const available = sequenceTokensMax(limits);
  const needed = promptTokens.length + (maxTokens > 0 ? 1 : 0);
  if (promptTokens.length === 0) return invalid("prompt", "the prompt has no tokens");
  if (needed > available) {
    const room = maxTokens > 0 ? ", and at least one token is to be generated" : "";
    const bound =
      available === limits.contextLength ? "the model's context" : "the KV cache (raise its memory budget)";
    return new MistralError(
      "context_length_exceeded",
      `the prompt has ${promptTokens.length} tokens${room}, but a sequence can have at most ${available} tokens, the size of ${bound}; shorten the prompt`,
      { parameter: "prompt" },
    );
  }
  for (const token of promptTokens) {
    if (token < 0 || token >= limits.vocabularySize) {
      return invalid("prompt", `token ${token} is not in the vocabulary of ${limits.vocabularySize} tokens`);
    }
  }
  return null;
}

function rangeRefusal(request: GenerateRequest, limits: StepLimits): MistralError | null {
  const { maxTokens, promptLogprobs, sampling, embedding } = request;
  const { topLogprobsMax, vocabularySize } = limits;
  if (!Number.isInteger(maxTokens) || maxTokens < 0) {
    return invalid("max_tokens", `max_tokens must be a whole number from 0, not ${maxTokens}`);
  }
  if (embedding !== undefined && (maxTokens > 0 || promptLogprobs >= 0)) {
    return invalid("max_tokens", "an embedding comes without generated tokens and without log-probabilities");
  }
  for (const [parameter, count] of [
    ["logprobs", sampling.logprobs],
    ["prompt_logprobs", promptLogprobs],
  ] as const) {
    if (!Number.isInteger(count) || count < -1 || count > topLogprobsMax) {
      return invalid(
        parameter,
        `at most ${topLogprobsMax} alternatives can be reported per token, not ${count}`,
      );
    }
  }
  for (const { token, bias } of sampling.logitBias) {
    if (!Number.isInteger(token) || token < 0 || token >= vocabularySize) {
      return invalid("logit_bias", `token ${token} is not in the vocabulary of ${vocabularySize} tokens`);
    }
    if (!Number.isFinite(bias)) return invalid("logit_bias", `the bias of token ${token} is ${bias}`);
  }
  return null;
}

function numberRefusal({ sampling }: GenerateRequest): MistralError | null {
  const { temperature, topK, topP, minP, frequencyPenalty, presencePenalty, repetitionPenalty, seed } =
    sampling;
  if (!(temperature >= 0 && temperature < Number.POSITIVE_INFINITY)) {
    return invalid("temperature", `temperature must be 0 or more, not ${temperature}`);
  }
  if (!Number.isInteger(topK) || topK < 0 || topK > 0x7fffffff) {
    return invalid("top_k", `top_k must be a whole number from 0 (off), not ${topK}`);
  }
  if (!(topP >= 0 && topP <= 1)) return invalid("top_p", `top_p must be between 0 and 1, not ${topP}`);
  if (!(minP >= 0 && minP <= 1)) return invalid("min_p", `min_p must be between 0 and 1, not ${minP}`);
  if (!Number.isFinite(frequencyPenalty)) {
    return invalid("frequency_penalty", `frequency_penalty must be a number, not ${frequencyPenalty}`);
  }
  if (!Number.isFinite(presencePenalty)) {
    return invalid("presence_penalty", `presence_penalty must be a number, not ${presencePenalty}`);
  }
  if (!(repetitionPenalty > 0 && repetitionPenalty < Number.POSITIVE_INFINITY)) {
    return invalid("repetition_penalty", `repetition_penalty must be above 0, not ${repetitionPenalty}`);
  }
  if (sampling.dry !== undefined) {
    const { multiplier, base, allowedLength } = sampling.dry;
    if (!(multiplier > 0 && multiplier < Number.POSITIVE_INFINITY)) {
      return invalid("dry_multiplier", `dry_multiplier must be above 0, not ${multiplier}`);
    }
    if (!(base > 0 && base < Number.POSITIVE_INFINITY)) {
      return invalid("dry_base", `dry_base must be above 0, not ${base}`);
    }
    if (!Number.isInteger(allowedLength) || allowedLength < 1) {
      return invalid("dry_allowed_length", `dry_allowed_length must be at least 1, not ${allowedLength}`);
    }
  }
  if (seed < 0n || seed > 0xffff_ffff_ffff_ffffn) {
    return invalid("seed", `the seed must be an unsigned 64-bit number, not ${seed}`);
  }
  return null;
}

function adjustmentRefusal(request: GenerateRequest, limits: StepLimits): MistralError | null {
  const worst = adjustmentsWorstCase(
    request.sampling,
    request.promptTokens.length,
    requestLengthMax(request, limits),
    limits.vocabularySize,
  );
  if (worst <= limits.adjustmentsMax) return null;
  return invalid(
    blamed(request.sampling),
    `penalties and biases could touch ${worst} tokens, and a step adjusts at most ${limits.adjustmentsMax}; lower max_tokens or bias fewer tokens`,
  );
}

/** The rule that touches most tokens. */
function blamed({ dry, repetitionPenalty }: GenerateRequest["sampling"]): string {
  if (repetitionPenalty !== 1) return "repetition_penalty";
  return dry === undefined ? "logit_bias" : "dry_multiplier";
}

function invalid(parameter: string, message: string): MistralError {
  return new MistralError("invalid_request", message, { parameter });
}
