/** `--strict`: a field that no parameter table has is refused, whatever the dialect. */

import type { TSchema } from "@sinclair/typebox";
import { didYouMean } from "../config/suggest.ts";
import { HttpFailure } from "./failure.ts";
import { PARAMETER_STATE, printable } from "./openai/parameters.ts";

/** Throws 400 for the first field of `body` that `schema`, when it was made of a parameter table, does not have. */
export function refuseUnknownFields(body: object, schema: TSchema | undefined): void {
  if (!isParameterTable(schema)) return;
  const known = Object.keys(schema.properties);
  for (const [field, value] of Object.entries(body)) {
    if (value === null || Object.hasOwn(schema.properties, field)) continue;
    const name = printable(field);
    throw new HttpFailure(400, `Unknown parameter: '${name}'${didYouMean(name, known)}.`, {
      code: "unknown_parameter",
      parameter: name,
    });
  }
}

/** Whether unknown fields of this schema are for its table to judge. */
export function isParameterTable(
  schema: TSchema | undefined,
): schema is TSchema & { readonly properties: Readonly<Record<string, TSchema>> } {
  const properties: Readonly<Record<string, TSchema>> = schema?.properties ?? {};
  return Object.values(properties).some((property) => PARAMETER_STATE in property);
}
