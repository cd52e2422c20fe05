/**
 * The API document: OpenAPI 3.1 from the routes as they are, their schemas and the parameter tables these were made
 * of. Nothing about a route is written down a second time here.
 */

import type { TSchema } from "@sinclair/typebox";
import packageJson from "../../../package.json" with { type: "json" };
import { ErrorBody } from "../openai/errors.ts";
import { STREAM_SCHEMA } from "../streams.ts";
import { isParameterTable } from "../strict.ts";
import { SchemaBook } from "./schema-book.ts";

/** What of an Elysia route is used. */
export interface DocumentedRoute {
  readonly method: string;
  readonly path: string;
  readonly hooks: {
    readonly body?: TSchema;
    readonly params?: TSchema;
    readonly query?: TSchema;
    readonly response?: unknown;
    readonly detail?: Readonly<Record<string, unknown>>;
  };
}

export interface DocumentOptions {
  /** Whether unknown fields are refused. */
  readonly strict: boolean;
  /** Whether clients must send an API key. */
  readonly keys: boolean;
}

type Json = Readonly<Record<string, unknown>>;

const STATUS_WORDS: Readonly<Record<string, string>> = {
  200: "Done.",
  400: "The request is wrong; `param` names the field.",
  401: "An API key is missing or unknown.",
  403: "The caller may not do this.",
  404: "There is no such thing.",
  405: "The path does not answer this method; `allow` names those it does.",
  409: "Not possible in the present state.",
  413: "The body is too large.",
  415: "The body's encoding is not supported.",
  429: "Too much at once; `retry-after` says when to try again.",
  431: "The headers are too large.",
  500: "The server failed; its log says why.",
  503: "Not ready; `retry-after` says when to try again.",
  504: "The request took longer than the server gives one request.",
};

/** Any route may answer with these: they come from the gate before all routes. */
const GATE_STATUSES = [400, 401, 413, 431, 500, 503] as const;

export function apiDocument(routes: readonly DocumentedRoute[], options: DocumentOptions): Json {
  const book = new SchemaBook();
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    // A second pattern for the same thing, for names with slashes.
    if (route.path.includes("*")) continue;
    const path = route.path.replace(/:(\w+)/g, "{$1}");
    paths[path] ??= {};
    paths[path][route.method.toLowerCase()] = operation(route, path, book, options);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: packageJson.name,
      version: packageJson.version,
      description: `${packageJson.description}. Unknown fields of a request are ${options.strict ? "refused" : "ignored with a warning"}.`,
      license: { name: packageJson.license, identifier: packageJson.license },
    },
    servers: [{ url: "/" }],
    ...(options.keys ? { security: [{ bearer: [] }, { key: [] }] } : {}),
    paths,
    components: {
      schemas: book.schemas,
      ...(options.keys
        ? {
            securitySchemes: {
              bearer: { type: "http", scheme: "bearer" },
              key: { type: "apiKey", in: "header", name: "x-api-key" },
            },
          }
        : {}),
    },
  };
}

function operation(
  { method, path: pattern, hooks }: DocumentedRoute,
  path: string,
  book: SchemaBook,
  { strict, keys }: DocumentOptions,
): Json {
  const { [STREAM_SCHEMA]: stream, responses: own, ...detail } = hooks.detail ?? {};
  const parameters = [...fieldsOf(hooks.params, "path", book), ...fieldsOf(hooks.query, "query", book)];
  return {
    operationId: operationId(method, pattern),
    ...detail,
    ...(parameters.length === 0 ? {} : { parameters }),
    ...(hooks.body === undefined ? {} : { requestBody: requestBody(hooks.body, strict, book) }),
    responses: own ?? responsesOf(hooks.response, stream as TSchema | undefined, book),
    ...(keys && path === "/health" ? { security: [] } : {}),
  };
}

/** `POST /v1/responses/:id/cancel` is post_v1_responses_id_cancel. */
function operationId(method: string, pattern: string): string {
  const words = pattern.split(/[^A-Za-z0-9]+/).filter((word) => word !== "");
  return [method.toLowerCase(), ...words].join("_");
}

function requestBody(body: TSchema, strict: boolean, book: SchemaBook): Json {
  const closed = strict && isParameterTable(body);
  const schema = { ...book.jsonSchema(body), ...(closed ? { additionalProperties: false } : {}) };
  return { required: true, content: { "application/json": { schema } } };
}

/** Each field of an object schema as a parameter in the path or the query. */
function fieldsOf(schema: TSchema | undefined, place: "path" | "query", book: SchemaBook): Json[] {
  const properties: Readonly<Record<string, TSchema>> = schema?.properties ?? {};
  const required: readonly string[] = schema?.required ?? [];
  return Object.entries(properties).map(([name, property]) => {
    const { description, ...json } = book.jsonSchema(property);
    return {
      name,
      in: place,
      required: required.includes(name),
      ...(description === undefined ? {} : { description }),
      schema: json,
    };
  });
}

function responsesOf(declared: unknown, stream: TSchema | undefined, book: SchemaBook): Json {
  const byStatus = statusesOf(declared);
  const responses: Record<string, unknown> = {};
  for (const status of GATE_STATUSES) responses[status] = failure(status, ErrorBody, book);
  for (const [status, schema] of Object.entries(byStatus)) {
    responses[status] =
      status === "200" ? success(schema, stream, book) : failure(Number(status), schema, book);
  }
  return responses;
}

/** Elysia takes one schema for a 200, or one for each status. */
function statusesOf(declared: unknown): Readonly<Record<string, TSchema>> {
  if (typeof declared !== "object" || declared === null) return {};
  if ("type" in declared || "anyOf" in declared) return { 200: declared as unknown as TSchema };
  return declared as Readonly<Record<string, TSchema>>;
}

function success(schema: TSchema, stream: TSchema | undefined, book: SchemaBook): Json {
  const events =
    stream === undefined
      ? {}
      : {
          "text/event-stream": {
            // The body is text; each of its events has JSON of this shape as data.
            schema: { type: "string", "x-event-data": book.jsonSchema(stream) },
          },
        };
  return {
    description: STATUS_WORDS[200],
    content: { "application/json": { schema: book.jsonSchema(schema) }, ...events },
  };
}

function failure(status: number, schema: TSchema, book: SchemaBook): Json {
  return {
    description: STATUS_WORDS[status] ?? "Refused.",
    content: { "application/json": { schema: book.jsonSchema(schema) } },
  };
}
