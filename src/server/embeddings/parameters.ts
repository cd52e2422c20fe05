/** The fields of POST /v1/embeddings, and its answer. */

import { t } from "elysia";
import { LIMITS } from "../limits.ts";
import {
  type BodyOf,
  bodySchema,
  expecting,
  noEffect,
  optional,
  refused,
  supported,
} from "../openai/parameters.ts";
import { SHARED_PARAMETERS } from "../openai/sampling-parameters.ts";

const TokenIds = () => t.Array(t.Integer({ minimum: 0, maximum: 2 ** 31 - 1 }), { minItems: 1 });

export const EMBEDDING_PARAMETERS = {
  model: SHARED_PARAMETERS.model,
  input: supported(
    t.Union(
      [
        t.String({ minLength: 1 }),
        t.Array(t.String({ minLength: 1 }), { minItems: 1, maxItems: LIMITS.embeddingInputs }),
        TokenIds(),
        t.Array(TokenIds(), { minItems: 1, maxItems: LIMITS.embeddingInputs }),
      ],
      expecting(
        `a text, an array of token ids, or an array of 1 to ${LIMITS.embeddingInputs} of either, none of them empty`,
      ),
    ),
    "The texts, or their token ids, to embed. Texts get the tokens that begin every text of this model.",
  ),
  encoding_format: supported(
    optional(t.Union([t.Literal("float"), t.Literal("base64")]), '"float" or "base64"'),
    "How vectors are written: as numbers, the default, or as base64 of little-endian 32-bit floats.",
  ),
  pooling: supported(
    optional(t.Union([t.Literal("last"), t.Literal("mean")]), '"last" or "mean"'),
    "What of the model's last hidden states, after its last norm, the vector is: that of the last token, the default, or the mean over all tokens. Either is scaled to unit length.",
  ),
  truncate_sequence: supported(
    optional(t.Boolean(), "true or false"),
    "Cuts inputs that the model cannot hold down to their first tokens instead of refusing them; a warning says how many were dropped.",
  ),
  dimensions: refused(t.Never(), "vectors are as long as the model makes them and are not shortened"),
  service_tier: SHARED_PARAMETERS.service_tier,
  cache_salt: SHARED_PARAMETERS.cache_salt,
  user: noEffect("Who the end user is."),
};

export const EmbeddingBody = bodySchema(EMBEDDING_PARAMETERS);
export type EmbeddingBody = BodyOf<typeof EMBEDDING_PARAMETERS>;

export const EmbeddingList = t.Object({
  object: t.Literal("list"),
  data: t.Array(
    t.Object({
      object: t.Literal("embedding"),
      /** Of the input it belongs to. */
      index: t.Integer(),
      embedding: t.Union([t.Array(t.Number()), t.String()]),
    }),
  ),
  model: t.String(),
  usage: t.Object({ prompt_tokens: t.Integer(), total_tokens: t.Integer() }),
});
export type EmbeddingList = typeof EmbeddingList.static;
