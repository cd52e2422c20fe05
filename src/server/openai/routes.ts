/** OpenAI's routes: each body checked against its table, mapped to the native request, and the answer mapped back. */

import { Elysia, t } from "elysia";
import { answerStream, answerWhole, type Exchange, warningHeaders } from "../answer.ts";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import { bestAnswers, foldText } from "../generation/fold.ts";
import { truncationWarnings } from "../generation/truncate.ts";
import type { ServedModel } from "../served-model.ts";
import { streams } from "../streams.ts";
import { answerHead } from "./answer-head.ts";
import { CHAT_PARAMETERS, ChatBody } from "./chat-parameters.ts";
import { chatTextRequest, unusedTemplateFields } from "./chat-request.ts";
import { chatChunks, chatCompletion } from "./chat-response.ts";
import { COMPLETION_PARAMETERS, CompletionBody } from "./completion-parameters.ts";
import { completionTextRequest } from "./completion-request.ts";
import { completion, completionChunks } from "./completion-response.ts";
import { ERROR_RESPONSES, errorEvent } from "./errors.ts";
import { ignoredFields } from "./parameters.ts";
import {
  ChatCompletion,
  ChatCompletionChunk,
  Completion,
  CompletionChunk,
  Model,
  ModelList,
} from "./responses.ts";
import { streamChoice } from "./sampling-parameters.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);

export function openaiRoutes(context: ServerContext) {
  const warn = (path: string, warnings: readonly string[]) => {
    for (const warning of warnings) context.warnOnce(`${path}: ${warning}`);
    return warnings;
  };
  // The two handlers are not `async`: Elysia types a stream and a body as two promises, not as one of either.
  return (
    new Elysia({ name: "openai", normalize: false })
      .post(
        "/v1/chat/completions",
        ({ body, request, server, set, path }) => {
          const model = context.models.get(body.model);
          const ignored = [
            ...ignoredFields(body, CHAT_PARAMETERS),
            ...unusedTemplateFields(body, model.chatTemplate),
          ];
          const { stream, includeUsage } = streamChoice(body);
          const text = chatTextRequest(body, model);
          const warnings = [...warn(path, ignored), ...truncationWarnings(text)];
          const exchange: Exchange = { context, request, server, model, text, warnings };
          const head = answerHead("chatcmpl", model);
          if (stream) {
            return answerStream(exchange, {
              encode: (events, choiceCount) => chatChunks(head, events, { choiceCount, includeUsage }),
              failure: errorEvent,
            });
          }
          Object.assign(set.headers, warningHeaders(warnings));
          return answerWhole(exchange, async (events, choiceCount) =>
            chatCompletion(head, await foldText(events, choiceCount), text.logprobs >= 0),
          );
        },
        {
          parse,
          body: ChatBody,
          response: { 200: ChatCompletion, ...ERROR_RESPONSES },
          detail: { tags: ["OpenAI"], summary: "Answer a conversation", ...streams(ChatCompletionChunk) },
        },
      )
      .post(
        "/v1/completions",
        ({ body, request, server, set, path }) => {
          const model = context.models.get(body.model);
          const { stream, includeUsage } = streamChoice(body);
          const text = completionTextRequest(body, model);
          const ignored = ignoredFields(body, COMPLETION_PARAMETERS);
          const warnings = [...warn(path, ignored), ...truncationWarnings(text)];
          const exchange: Exchange = { context, request, server, model, text, warnings };
          const head = answerHead("cmpl", model);
          if (stream) {
            return answerStream(exchange, {
              encode: (events) => completionChunks(head, events, { includeUsage }),
              failure: errorEvent,
            });
          }
          Object.assign(set.headers, warningHeaders(warnings));
          return answerWhole(exchange, async (events, choiceCount) => {
            const best = bestAnswers(await foldText(events, choiceCount), text.n, text.bestOf ?? text.n);
            return completion(head, best, text.logprobs >= 0);
          });
        },
        {
          parse,
          body: CompletionBody,
          response: { 200: Completion, ...ERROR_RESPONSES },
          detail: { tags: ["OpenAI"], summary: "Continue a text", ...streams(CompletionChunk) },
        },
      )
      .get(
        "/v1/models",
        () => ({ object: "list" as const, data: context.models.available().map(modelBody) }),
        {
          response: { 200: ModelList, ...ERROR_RESPONSES },
          detail: { tags: ["Models"], summary: "List the loaded models" },
        },
      )
      .get("/v1/models/:id", ({ params }) => modelBody(context.models.get(params.id)), {
        params: t.Object({
          id: t.String({ description: "The model's name; a slash may be escaped or not." }),
        }),
        response: { 200: Model, ...ERROR_RESPONSES },
        detail: { tags: ["Models"], summary: "Describe a loaded model" },
      })
      // Names of hub models have a slash, which not every client escapes.
      .get("/v1/models/*", ({ params }) => modelBody(context.models.get(params["*"])), {
        response: { 200: Model, ...ERROR_RESPONSES },
      })
  );
}

function modelBody(model: ServedModel): Model {
  return {
    id: model.id,
    object: "model",
    created: model.created,
    owned_by: "mistral.ts",
    max_model_len: model.engine.info.contextLength,
  };
}
