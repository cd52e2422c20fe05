/** The routes of responses: create one, fetch it, stop it, forget it. */

import { Elysia, t } from "elysia";
import { warningHeaders } from "../answer.ts";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import { HttpFailure } from "../failure.ts";
import { ERROR_RESPONSES } from "../openai/errors.ts";
import { expecting, ignoredFields } from "../openai/parameters.ts";
import { streams } from "../streams.ts";
import { answerStream, answerWhole, eventsOf, type ResponseExchange } from "./answer.ts";
import { RESPONSE_PARAMETERS, ResponseCreateBody } from "./parameters.ts";
import { unusedIncludes } from "./request.ts";
import { DeletedResponse, ResponseBody, ResponseStreamEvent } from "./shapes.ts";
import { ResponseStore } from "./store.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);
const tags = ["Responses"];

const IdParams = t.Object({ id: t.String({ description: "The response's `id`." }) });

const RetrieveQuery = t.Object(
  {
    stream: t.Optional(
      t.Union([t.Literal("true"), t.Literal("false")], {
        description: "Gives the events of a background response, those to come included.",
        ...expecting("true or false"),
      }),
    ),
    starting_after: t.Optional(
      t.String({
        pattern: "^[0-9]{1,9}$",
        description: "Gives the events after this sequence number.",
        ...expecting("a sequence number"),
      }),
    ),
  },
  { additionalProperties: true },
);

export function responseRoutes(context: ServerContext) {
  const store = new ResponseStore();
  return new Elysia({ name: "responses", normalize: false })
    .post(
      "/v1/responses",
      // Not `async`: Elysia types a stream and a body as two promises, not as one of either.
      ({ body, request, server, set, path }) => {
        const warnings = [...ignoredFields(body, RESPONSE_PARAMETERS), ...unusedIncludes(body)];
        for (const warning of warnings) context.warnOnce(`${path}: ${warning}`);
        const model = context.models.get(body.model);
        const exchange: ResponseExchange = { context, store, request, server, model, body, warnings };
        if (body.stream === true) return answerStream(exchange);
        Object.assign(set.headers, warningHeaders(warnings));
        return answerWhole(exchange);
      },
      {
        parse,
        body: ResponseCreateBody,
        response: { 200: ResponseBody, ...ERROR_RESPONSES },
        detail: {
          tags,
          summary: "Create a response",
          ...streams(ResponseStreamEvent),
        },
      },
    )
    .get(
      "/v1/responses/:id",
      ({ params, query, request, server }) => {
        const run = store.get(params.id);
        if (query.stream !== "true") return run.body;
        if (!run.background) {
          throw new HttpFailure(
            400,
            `The response "${run.id}" was not created with background: true; its events are not kept.`,
            { code: "invalid_value", parameter: "stream" },
          );
        }
        server?.timeout(request, 0);
        return eventsOf({ context, request }, run, Number(query.starting_after ?? -1));
      },
      {
        params: IdParams,
        query: RetrieveQuery,
        response: { 200: ResponseBody, ...ERROR_RESPONSES },
        detail: { tags, summary: "Fetch a response", ...streams(ResponseStreamEvent) },
      },
    )
    .delete(
      "/v1/responses/:id",
      ({ params }) => {
        store.delete(params.id);
        return { id: params.id, object: "response.deleted" as const, deleted: true as const };
      },
      {
        params: IdParams,
        response: { 200: DeletedResponse, ...ERROR_RESPONSES },
        detail: { tags, summary: "Forget a response, and stop it when it still runs" },
      },
    )
    .post(
      "/v1/responses/:id/cancel",
      ({ params }) => {
        const run = store.get(params.id);
        run.cancel();
        return run.body;
      },
      {
        params: IdParams,
        response: { 200: ResponseBody, ...ERROR_RESPONSES },
        detail: { tags, summary: "Stop a response that still runs" },
      },
    );
}
