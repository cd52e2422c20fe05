/** Loading and unloading of models while the server runs, for its administrator; their state, for everybody. */

import { Elysia, t } from "elysia";
import { readJsonBody } from "../body.ts";
import type { ServerContext } from "../context.ts";
import type { ModelEntry, ModelStatus } from "../model-registry.ts";
import { ERROR_RESPONSES } from "../openai/errors.ts";
import { bodySchema, expecting, ignoredFields, optional, supported } from "../openai/parameters.ts";
import { administrators } from "./administrators.ts";

const parse = ({ request }: { request: Request }) => readJsonBody(request);

const Name = () => t.String({ minLength: 1, maxLength: 1_000, ...expecting("the name of a model") });

const NAMED_MODEL = {
  model_id: supported(Name(), 'The model\'s name as `/v1/models` has it, or "default".'),
};

const NEW_MODEL = {
  model_id: supported(Name(), "What to load: a path on the server's machine or a hub id."),
  quantized_file: supported(
    optional(t.String({ minLength: 1 }), "the name of a file"),
    "Which of the model's GGUF files to use.",
  ),
};

const NamedModelBody = bodySchema(NAMED_MODEL);
const NewModelBody = bodySchema(NEW_MODEL);

const ModelState = t.Object({
  model_id: t.String(),
  status: t.Union([
    t.Literal("loaded"),
    t.Literal("unloading"),
    t.Literal("unloaded"),
    t.Literal("reloading"),
    t.Literal("failed"),
  ]),
  /** Why the last attempt to load it failed. */
  error: t.Optional(t.String()),
});
type ModelState = typeof ModelState.static;

const response = { 200: ModelState, ...ERROR_RESPONSES };

export function modelStatusRoute(context: ServerContext) {
  return new Elysia({ name: "model-status", normalize: false }).post(
    "/v1/models/status",
    ({ body, path }) => {
      warn(context, path, ignoredFields(body, NAMED_MODEL));
      return stateOf(context.models.entry(body.model_id));
    },
    {
      parse,
      body: NamedModelBody,
      response,
      detail: { tags: ["Models"], summary: "Tell whether a model is loaded" },
    },
  );
}

export function modelAdministrationRoutes(context: ServerContext) {
  const tags = ["Administration"];
  return new Elysia({ name: "model-administration", normalize: false })
    .use(administrators(context))
    .post(
      "/v1/models/load",
      async ({ body, path, request, server }) => {
        warn(context, path, ignoredFields(body, NEW_MODEL));
        server?.timeout(request, 0);
        const { model_id: model, quantized_file: file } = body;
        return stateOf(await context.models.load({ model, file: file ?? undefined }));
      },
      { parse, body: NewModelBody, response, detail: { tags, summary: "Load a further model" } },
    )
    .post(
      "/v1/models/unload",
      async ({ body, path, request, server }) => {
        warn(context, path, ignoredFields(body, NAMED_MODEL));
        server?.timeout(request, 0);
        return stateOf(await context.models.unload(body.model_id));
      },
      {
        parse,
        body: NamedModelBody,
        response,
        detail: { tags, summary: "Unload a model after its open requests, and free its memory" },
      },
    )
    .post(
      "/v1/models/reload",
      async ({ body, path, request, server }) => {
        warn(context, path, ignoredFields(body, NAMED_MODEL));
        server?.timeout(request, 0);
        return stateOf(await context.models.reload(body.model_id));
      },
      { parse, body: NamedModelBody, response, detail: { tags, summary: "Load an unloaded model again" } },
    );
}

/** In mistral.rs's words. */
const STATUS_WORDS: Readonly<Record<ModelStatus, ModelState["status"]>> = {
  loaded: "loaded",
  unloading: "unloading",
  unloaded: "unloaded",
  loading: "reloading",
  failed: "failed",
};

function stateOf({ id, status, error }: ModelEntry): ModelState {
  return { model_id: id, status: STATUS_WORDS[status], ...(error === undefined ? {} : { error }) };
}

function warn(context: ServerContext, path: string, warnings: readonly string[]): void {
  for (const warning of warnings) context.warnOnce(`${path}: ${warning}`);
}
