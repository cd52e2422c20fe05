/** The fields of POST /v1/completions. */

import { t } from "elysia";
import { LIMITS } from "../limits.ts";
import { type BodyOf, bodySchema, expecting, optional, refused, supported } from "./parameters.ts";
import { SHARED_PARAMETERS } from "./sampling-parameters.ts";

const TokenIds = () => t.Array(t.Integer({ minimum: 0, maximum: 2 ** 31 - 1 }), { minItems: 1 });

export const COMPLETION_PARAMETERS = {
  ...SHARED_PARAMETERS,
  prompt: supported(
    t.Union(
      [
        t.String(),
        t.Array(t.String(), { minItems: 1, maxItems: LIMITS.prompts }),
        TokenIds(),
        t.Array(TokenIds(), { minItems: 1, maxItems: LIMITS.prompts }),
      ],
      expecting(`a string, an array of token ids, or an array of 1 to ${LIMITS.prompts} of either`),
    ),
    "The text, or its token ids, to go on from; an array of them gives one answer each.",
  ),
  logprobs: supported(
    optional(
      t.Integer({ minimum: 0, maximum: LIMITS.topLogprobs }),
      `an integer from 0 to ${LIMITS.topLogprobs}`,
    ),
    "Reports the log-probability of each token and of this many of the most likely ones in its place.",
  ),
  echo: supported(
    optional(t.Boolean(), "true or false"),
    "Puts the prompt in front of the answer, and its tokens in front of the log-probabilities.",
  ),
  best_of: supported(
    optional(t.Integer({ minimum: 1, maximum: LIMITS.choices }), `an integer from 1 to ${LIMITS.choices}`),
    "Generates this many answers and gives the `n` with the highest log-probability per token, best first. All are paid for. Not with `stream`.",
  ),
  suffix: refused(t.Literal(""), "text is only continued, not filled in before a suffix"),
  tools: refused(t.Array(t.Unknown(), { maxItems: 0 }), "tool calling is not built yet"),
};

export const CompletionBody = bodySchema(COMPLETION_PARAMETERS);
export type CompletionBody = BodyOf<typeof COMPLETION_PARAMETERS>;
