/** TypeBox schemas as the JSON Schema of an API document: shared ones under a name, our own keywords as words. */

import type { TSchema } from "@sinclair/typebox";
import { ErrorBody } from "../openai/errors.ts";
import { integerIn } from "../openai/exact-integers.ts";
import {
  ChatCompletion,
  ChatCompletionChunk,
  Completion,
  CompletionChunk,
  Model,
  UsageBody,
} from "../openai/responses.ts";
import { OutputItem, ResponseBody, ResponseStreamEvent } from "../responses/shapes.ts";

type Json = Readonly<Record<string, unknown>>;

/** What is written once and referred to by its name. */
const NAMED: ReadonlyMap<unknown, string> = new Map<unknown, string>([
  [ErrorBody, "Error"],
  [UsageBody, "Usage"],
  [ChatCompletion, "ChatCompletion"],
  [ChatCompletionChunk, "ChatCompletionChunk"],
  [Completion, "Completion"],
  [CompletionChunk, "CompletionChunk"],
  [Model, "Model"],
  [OutputItem, "OutputItem"],
  [ResponseBody, "Response"],
  [ResponseStreamEvent, "ResponseStreamEvent"],
]);

/** Keywords of ours that speak to error messages. */
const OWN_KEYWORDS: ReadonlySet<string> = new Set(["expects", "refused", "error"]);

export class SchemaBook {
  /** The named schemas that were used so far. */
  readonly schemas: Record<string, Json> = {};

  /** The schema as JSON; a named one as a reference, which may carry a description of its own. */
  jsonSchema(schema: TSchema): Json {
    const name = NAMED.get(schema);
    if (name === undefined) return this.#convert(schema);
    if (this.schemas[name] === undefined) {
      // Present before it is complete, in case it refers to itself.
      this.schemas[name] = {};
      this.schemas[name] = this.#convert(schema);
    }
    return { $ref: `#/components/schemas/${name}` };
  }

  #convert(schema: Json): Json {
    const json: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(integerIn(schema) ?? schema)) {
      if (!OWN_KEYWORDS.has(key)) json[key] = this.#value(value);
    }
    const { refused } = schema;
    if (typeof refused === "string") json.description = `Refused: ${refused}.`;
    return json;
  }

  #value(value: unknown): unknown {
    if (Array.isArray(value)) return value.map((item) => this.#value(item));
    if (typeof value !== "object" || value === null) return value;
    return NAMED.has(value) ? this.jsonSchema(value as TSchema) : this.#convert(value as Json);
  }
}
