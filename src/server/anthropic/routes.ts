/** Anthropic's routes: each body checked against its table, mapped to the native request, and the answer mapped back. */

import { Elysia } from "elysia";
import { answerStream, answerWhole, type Exchange, warningHeaders } from "../answer.ts";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import { tokenCapacity } from "../generation/plan.ts";
import type { TextRequest } from "../generation/request.ts";
import { truncationWarnings } from "../generation/truncate.ts";
import { ignoredFields, type ParameterTable } from "../openai/parameters.ts";
import type { ServedModel } from "../served-model.ts";
import { streams } from "../streams.ts";
import { ERROR_RESPONSES, errorEvent, REQUEST_ID_HEADER } from "./errors.ts";
import { type MessageHead, messageId, messageStream, PING_EVENT, wholeMessage } from "./message-events.ts";
import { COUNT_PARAMETERS, CountBody, MESSAGE_PARAMETERS, MessageBody } from "./message-parameters.ts";
import { countPromptTokens, messageTextRequest, unusedFields } from "./message-request.ts";
import { Message, MessageEvent, TokenCount } from "./shapes.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);
const tags = ["Anthropic"];

export function anthropicRoutes(context: ServerContext) {
  const warningsFor = (path: string, body: CountBody, table: ParameterTable, model: ServedModel) => {
    const warnings = [...ignoredFields(body, table), ...unusedFields(body, model)];
    for (const warning of warnings) context.warnOnce(`${path}: ${warning}`);
    return warnings;
  };
  return new Elysia({ name: "anthropic", normalize: false })
    .onBeforeHandle(({ request, set }) => {
      const id = context.records.of(request)?.id;
      if (id !== undefined) set.headers[REQUEST_ID_HEADER] = id;
    })
    .post(
      "/v1/messages",
      // Not `async`: Elysia types a stream and a body as two promises, not as one of either.
      ({ body, request, server, set, path }) => {
        const model = context.models.get(body.model);
        const text = messageTextRequest(body, model);
        const ignored = warningsFor(path, body, MESSAGE_PARAMETERS, model);
        const warnings = [...ignored, ...truncationWarnings(text)];
        const exchange: Exchange = { context, request, server, model, text, warnings };
        const head = messageHead(body, model, text);
        if (body.stream === true) {
          return answerStream(exchange, {
            encode: (events) => messageStream(head, events),
            failure: (failure) => errorEvent(failure, context.records.of(request)?.id),
            keepAlive: PING_EVENT,
          });
        }
        Object.assign(set.headers, warningHeaders(warnings));
        return answerWhole(exchange, (events) => wholeMessage(head, events));
      },
      {
        parse,
        body: MessageBody,
        response: { 200: Message, ...ERROR_RESPONSES },
        detail: { tags, summary: "Create a message", ...streams(MessageEvent) },
      },
    )
    .post(
      "/v1/messages/count_tokens",
      ({ body, set, path }) => {
        const model = context.models.get(body.model);
        const inputTokens = countPromptTokens(body, model);
        const warnings = warningsFor(path, body, COUNT_PARAMETERS, model);
        Object.assign(set.headers, warningHeaders(warnings));
        return { input_tokens: inputTokens };
      },
      {
        parse,
        body: CountBody,
        response: { 200: TokenCount, ...ERROR_RESPONSES },
        detail: { tags, summary: "Count the tokens of a message's prompt" },
      },
    );
}

function messageHead(body: MessageBody, model: ServedModel, { prompts }: TextRequest): MessageHead {
  const promptTokens = prompts[0]!.tokens.length;
  return {
    id: messageId(),
    model: model.id,
    promptTokens,
    contextLimited: promptTokens + body.max_tokens > tokenCapacity(model.engine.info),
    hidesThinking: body.thinking?.display === "omitted",
  };
}
