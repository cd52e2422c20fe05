/** Turns the first complaint of a schema about a request body into a sentence that names the field and the value. */

import type { TSchema } from "@sinclair/typebox";
import { HttpFailure } from "../failure.ts";
import { LIMITS } from "../limits.ts";

/** What of Elysia's ValidationError is used. */
export interface BodyComplaint {
  readonly value: unknown;
  readonly validator: { Errors(value: unknown): { First(): SchemaComplaint | undefined } };
}

interface SchemaComplaint {
  readonly path: string;
  readonly schema: TSchema;
  readonly value: unknown;
  readonly message: string;
}

export function bodyFailure(complaint: BodyComplaint): HttpFailure {
  const first = complaint.validator.Errors(complaint.value).First();
  if (first === undefined) return new HttpFailure(400, "The request body does not have the expected shape.");
  return failureFor(first);
}

function failureFor({ path, schema, value, message }: SchemaComplaint): HttpFailure {
  const parameter = fieldName(path);
  if (typeof schema.refused === "string") {
    const text = `Unsupported parameter: '${parameter}' cannot be used: ${schema.refused}.`;
    return new HttpFailure(400, text, { code: "unsupported_parameter", parameter });
  }
  if (value === undefined) {
    const text = `Missing required parameter: '${parameter}'${expectation(schema, ", ")}.`;
    return new HttpFailure(400, text, { code: "missing_required_parameter", parameter });
  }
  const wrong = typeof schema.expects === "string" ? `must be ${schema.expects}` : `is wrong: ${message}`;
  return new HttpFailure(400, `Invalid value: '${parameter}' ${wrong}, got ${preview(value)}.`, {
    code: "invalid_value",
    parameter,
  });
}

function expectation(schema: TSchema, before: string): string {
  return typeof schema.expects === "string" ? `${before}${schema.expects}` : "";
}

/** "/messages/0/role" as "messages[0].role". */
function fieldName(path: string): string {
  return path
    .split("/")
    .slice(1)
    .map((segment) => segment.replaceAll("~1", "/").replaceAll("~0", "~").slice(0, 64))
    .map((segment, index) => (/^\d+$/.test(segment) ? `[${segment}]` : index === 0 ? segment : `.${segment}`))
    .join("");
}

/** The value as the client wrote it, short; large values are told by their kind and size. */
function preview(value: unknown): string {
  if (Array.isArray(value)) return value.length <= 4 ? shortJson(value) : `an array of ${value.length}`;
  return shortJson(value);
}

function shortJson(value: unknown): string {
  if (typeof value === "string" && value.length > LIMITS.previewCharacters)
    return `a string of ${value.length} characters`;
  const json = JSON.stringify(value) ?? String(value);
  return json.length <= LIMITS.previewCharacters ? json : `${json.slice(0, LIMITS.previewCharacters)}...`;
}
