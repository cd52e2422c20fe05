/** POST /v1/embeddings: vectors of texts, made of the hidden states of a text model. */

import { Elysia } from "elysia";
import { warningHeaders } from "../answer.ts";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import type { TextEvent } from "../generation/request.ts";
import { ERROR_RESPONSES } from "../openai/errors.ts";
import { ignoredFields } from "../openai/parameters.ts";
import { priority } from "../openai/sampling-parameters.ts";
import { requireReady } from "../served-model.ts";
import { type Embeddings, embed } from "./embed.ts";
import { embeddingInputs } from "./inputs.ts";
import { EMBEDDING_PARAMETERS, EmbeddingBody, EmbeddingList } from "./parameters.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);

export function embeddingRoutes(context: ServerContext) {
  return new Elysia({ name: "embeddings", normalize: false }).post(
    "/v1/embeddings",
    async ({ body, request, server, set, path }) => {
      const model = context.models.get(body.model);
      requireReady(model);
      const ignored = ignoredFields(body, EMBEDDING_PARAMETERS);
      for (const warning of ignored) context.warnOnce(`${path}: ${warning}`);
      const options = {
        pooling: body.pooling ?? "last",
        priority: priority(body),
        cacheSalt: body.cache_salt ?? undefined,
        onStarted: context.records.queueListener(request),
      };
      const scope = context.lifecycle.open(request);
      server?.timeout(request, 0);
      try {
        const { inputs, warnings } = await embeddingInputs(body, model, scope.signal);
        Object.assign(set.headers, warningHeaders([...ignored, ...warnings]));
        const tokens = inputs.map((input) => input.tokens);
        const run = recorded(embed(model, tokens, options, scope.signal));
        for await (const _ of context.records.observe(request, { prompts: inputs }, run.events)) {
          // Nothing comes but the cost, which the record takes note of.
        }
        return embeddingList(await run.result, body.encoding_format ?? "float", model.id);
      } finally {
        scope.close();
      }
    },
    {
      parse,
      body: EmbeddingBody,
      response: { 200: EmbeddingList, ...ERROR_RESPONSES },
      detail: { tags: ["OpenAI"], summary: "Embed texts" },
    },
  );
}

/** The result, and what it cost as the events that request records read. */
function recorded(result: Promise<Embeddings>) {
  async function* events(): AsyncGenerator<readonly TextEvent[], void, undefined> {
    const { promptTokens, cachedTokens } = await result;
    yield [{ type: "usage", usage: { promptTokens, cachedTokens, completionTokens: 0, reasoningTokens: 0 } }];
  }
  return { result, events: events() };
}

function embeddingList(
  { vectors, promptTokens }: Embeddings,
  format: "float" | "base64",
  model: string,
): EmbeddingList {
  const write = format === "base64" ? base64 : (vector: Float32Array) => [...vector];
  return {
    object: "list",
    data: vectors.map((vector, index) => ({ object: "embedding", index, embedding: write(vector) })),
    model,
    usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
  };
}

/** Little-endian whatever the processor is. */
function base64(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  for (let index = 0; index < vector.length; index++) bytes.writeFloatLE(vector[index]!, index * 4);
  return bytes.toString("base64");
}
