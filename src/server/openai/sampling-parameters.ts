/** The request fields that chat and text completions share, and their mapping to the native request. */

import { t } from "elysia";
import type { Priority } from "../../engine/messages.ts";
import { MistralError } from "../../errors.ts";
import type { DryRequest, SamplingOverrides } from "../generation/request.ts";
import { LIMITS } from "../limits.ts";
import { type BodyOf, expecting, noEffect, optional, refused, supported } from "./parameters.ts";

const integer = (minimum: number, maximum: number) => t.Integer({ minimum, maximum });
const SAFE = Number.MAX_SAFE_INTEGER;

export const SHARED_PARAMETERS = {
  model: supported(
    optional(t.String(), 'the name of a loaded model, or "default"'),
    'Name of a loaded model; "default", or leaving it out, means the first.',
  ),
  temperature: supported(
    optional(t.Number({ minimum: 0, maximum: 2 }), "a number from 0 to 2"),
    "Flattens (above 1) or sharpens the distribution; 0 always takes the most likely token. Default: the model's, else 1.",
  ),
  top_p: supported(
    optional(t.Number({ minimum: 0, maximum: 1 }), "a number from 0 to 1"),
    "Draws from the most likely tokens that together have this probability. Default: the model's, else 1 (all).",
  ),
  top_k: supported(
    optional(integer(-1, 2 ** 31 - 1), "an integer; 0 or -1 turns it off"),
    "Draws from this many of the most likely tokens. Default: the model's, else off.",
  ),
  min_p: supported(
    optional(t.Number({ minimum: 0, maximum: 1 }), "a number from 0 to 1"),
    "Drops tokens less likely than this share of the most likely one. Default: the model's, else 0 (off).",
  ),
  max_tokens: supported(
    optional(integer(0, SAFE), "an integer of at least 0"),
    "Most tokens to generate. Default, and upper bound: what the context still holds.",
  ),
  stop: supported(
    optional(
      t.Union([stopString(), t.Array(stopString(), { maxItems: LIMITS.stopStrings })]),
      `a string or an array of at most ${LIMITS.stopStrings} strings, each of 1 to ${LIMITS.stopStringCharacters} characters`,
    ),
    "Texts that end the answer, wherever they come, in thoughts too; they are not part of it.",
  ),
  seed: supported(
    optional(integer(-SAFE, SAFE), `an integer of magnitude up to ${SAFE}`),
    "The same seed, request and model give the same answer. Default: drawn at random.",
  ),
  n: supported(
    optional(integer(1, LIMITS.choices), `an integer from 1 to ${LIMITS.choices}`),
    "How many answers to generate for the prompt.",
  ),
  frequency_penalty: supported(
    optional(t.Number({ minimum: -2, maximum: 2 }), "a number from -2 to 2"),
    "Subtracted from a token's logit for each time the answer already has it.",
  ),
  presence_penalty: supported(
    optional(t.Number({ minimum: -2, maximum: 2 }), "a number from -2 to 2"),
    "Subtracted from a token's logit when the answer already has it.",
  ),
  repetition_penalty: supported(
    optional(t.Number({ exclusiveMinimum: 0, maximum: 10 }), "a number above 0 and up to 10"),
    "Divides the logits of tokens that prompt or answer already have. Default: the model's, else 1 (off).",
  ),
  logit_bias: supported(
    optional(
      t.Record(t.String(), t.Number({ minimum: -100, maximum: 100 }), { maxProperties: LIMITS.logitBiases }),
      `an object from token ids to numbers from -100 to 100, with at most ${LIMITS.logitBiases} entries`,
    ),
    "Added to the logits of these tokens.",
  ),
  ignore_eos: supported(
    optional(t.Boolean(), "true or false"),
    "Goes on after the model's end token, until another limit ends the answer.",
  ),
  stream: supported(
    optional(t.Boolean(), "true or false"),
    "Sends the answer as server-sent events while it is generated.",
  ),
  stream_options: supported(
    optional(
      t.Object(
        {
          include_usage: optional(t.Boolean(), "true or false"),
          include_obfuscation: optional(t.Boolean(), "true or false"),
        },
        { additionalProperties: true },
      ),
      "an object with `include_usage`",
    ),
    "With `include_usage`, the stream's last chunk tells what it cost. Only together with `stream`.",
  ),
  dry_multiplier: supported(
    optional(t.Number({ minimum: 0, maximum: 100 }), "a number from 0 (off) to 100"),
    "Strength of the DRY penalty: a token that would prolong a repetition of length L loses multiplier * base ^ (L - allowed length).",
  ),
  dry_base: supported(
    optional(t.Number({ exclusiveMinimum: 0, maximum: 100 }), "a number above 0 and up to 100"),
    "How the DRY penalty grows with the length of the repetition. Default: 1.75.",
  ),
  dry_allowed_length: supported(
    optional(integer(0, SAFE), "an integer of at least 0"),
    "Shortest repetition that DRY penalises, in tokens. Default: 2.",
  ),
  dry_sequence_breakers: supported(
    optional(
      t.Array(t.String({ minLength: 1, maxLength: LIMITS.dryBreakerCharacters }), {
        maxItems: LIMITS.dryBreakers,
      }),
      `an array of at most ${LIMITS.dryBreakers} strings, each of 1 to ${LIMITS.dryBreakerCharacters} characters`,
    ),
    'Texts across which DRY counts nothing as repeated. Default: "\\n", ":", """ and "*".',
  ),
  truncate_sequence: supported(
    optional(t.Boolean(), "true or false"),
    "Drops the oldest tokens of a prompt that is too long, and says so in `x-mistral-warning`. Otherwise it is refused.",
  ),
  cache_salt: supported(
    optional(
      t.String({ maxLength: LIMITS.cacheSaltCharacters }),
      `a string of up to ${LIMITS.cacheSaltCharacters} characters`,
    ),
    "Shares cached prefixes only with requests of the same salt, so that nobody else's timing tells what was asked.",
  ),
  service_tier: supported(
    optional(
      t.Union([t.Literal("auto"), t.Literal("default"), t.Literal("priority"), t.Literal("flex")]),
      "one of auto, default, priority or flex",
    ),
    'Who goes first when requests wait: "priority" before the others, "flex" after them; nobody waits for ever.',
  ),
  user: noEffect("Who the end user is."),
  metadata: noEffect("The client's notes about the request."),
  grammar: refused(t.Never(), "constrained decoding is not built yet"),
  adapter: refused(t.Never(), "LoRA adapters are not built yet"),
};

function stopString() {
  return t.String({
    minLength: 1,
    maxLength: LIMITS.stopStringCharacters,
    ...expecting("a non-empty string"),
  });
}

type SharedBody = BodyOf<typeof SHARED_PARAMETERS>;

export function samplingOverrides(body: SharedBody): SamplingOverrides {
  return {
    temperature: body.temperature ?? undefined,
    topP: body.top_p ?? undefined,
    topK: body.top_k === -1 ? 0 : (body.top_k ?? undefined),
    minP: body.min_p ?? undefined,
    frequencyPenalty: body.frequency_penalty ?? undefined,
    presencePenalty: body.presence_penalty ?? undefined,
    repetitionPenalty: body.repetition_penalty ?? undefined,
    seed: body.seed ?? undefined,
    logitBias: logitBias(body.logit_bias ?? {}),
    dry: dryRequest(body),
  };
}

const DRY_DEFAULTS = { base: 1.75, allowedLength: 2, breakers: ["\n", ":", '"', "*"] } as const;

function dryRequest(body: SharedBody): DryRequest | undefined {
  const multiplier = body.dry_multiplier ?? 0;
  if (multiplier === 0) return undefined;
  return {
    multiplier,
    base: body.dry_base ?? DRY_DEFAULTS.base,
    // A repetition has at least one token, so 0 allows no fewer than 1 does.
    allowedLength: Math.max(1, body.dry_allowed_length ?? DRY_DEFAULTS.allowedLength),
    breakers: body.dry_sequence_breakers ?? DRY_DEFAULTS.breakers,
  };
}

/** OpenAI's tiers are our classes of priority. */
export function priority(body: Pick<SharedBody, "service_tier">): Priority {
  switch (body.service_tier) {
    case "priority":
      return "interactive";
    case "flex":
      return "batch";
    default:
      return "normal";
  }
}

export function stopStrings(body: SharedBody): readonly string[] {
  if (body.stop === null || body.stop === undefined) return [];
  return typeof body.stop === "string" ? [body.stop] : body.stop;
}

export interface StreamChoice {
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

export function streamChoice(body: SharedBody): StreamChoice {
  const stream = body.stream ?? false;
  if (!stream && body.stream_options) {
    throw new MistralError("invalid_request", "stream_options is only allowed when stream is true.", {
      parameter: "stream_options",
    });
  }
  return { stream, includeUsage: body.stream_options?.include_usage ?? false };
}

function logitBias(entries: Readonly<Record<string, number>>): { token: number; bias: number }[] {
  return Object.entries(entries).map(([key, bias]) => {
    if (!/^\d{1,9}$/.test(key)) {
      throw new MistralError(
        "invalid_request",
        `The keys of logit_bias must be token ids; got "${key.slice(0, 40)}".`,
        {
          parameter: "logit_bias",
        },
      );
    }
    return { token: Number(key), bias };
  });
}
