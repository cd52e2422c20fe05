/**
 * POST /v1/embeddings. No model that is served yet gives the hidden states an embedding is made of, so a valid request
 * is refused with the reason instead of with "no such route".
 */

import { Elysia, t } from "elysia";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import { HttpFailure } from "../failure.ts";
import { LIMITS } from "../limits.ts";
import { ERROR_RESPONSES } from "../openai/errors.ts";
import { bodySchema, expecting, noEffect, optional, supported } from "../openai/parameters.ts";
import { SHARED_PARAMETERS } from "../openai/sampling-parameters.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);

const TokenIds = () => t.Array(t.Integer({ minimum: 0, maximum: 2 ** 31 - 1 }), { minItems: 1 });

const EMBEDDING_PARAMETERS = {
  model: SHARED_PARAMETERS.model,
  input: supported(
    t.Union(
      [
        t.String(),
        t.Array(t.String(), { minItems: 1, maxItems: LIMITS.prompts }),
        TokenIds(),
        t.Array(TokenIds(), { minItems: 1, maxItems: LIMITS.prompts }),
      ],
      expecting(`a string, an array of token ids, or an array of 1 to ${LIMITS.prompts} of either`),
    ),
    "The texts, or their token ids, to embed.",
  ),
  encoding_format: supported(
    optional(t.Union([t.Literal("float"), t.Literal("base64")]), "float or base64"),
    "How vectors are written.",
  ),
  user: noEffect("Who the end user is."),
};

export function embeddingRoutes(context: ServerContext) {
  return new Elysia({ name: "embeddings", normalize: false }).post(
    "/v1/embeddings",
    ({ body }): never => {
      const { id, engine } = context.models.get(body.model);
      throw new HttpFailure(
        400,
        `The model "${id}" (${engine.info.architecture}) generates text and gives no embeddings; this server has no embedding models yet.`,
        { code: "embeddings_not_supported", parameter: "model" },
      );
    },
    {
      parse,
      body: bodySchema(EMBEDDING_PARAMETERS),
      response: ERROR_RESPONSES,
      detail: { tags: ["OpenAI"], summary: "Embed texts: refused, no served model can yet" },
    },
  );
}
