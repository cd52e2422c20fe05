/**
 * The parameter table: each request field is declared once, in one of three states. Its schema, its type for the
 * typed client, the words of its error messages and the warning about it all come from that one row.
 */

import type { SchemaOptions, Static, TObject, TSchema } from "@sinclair/typebox";
import { t } from "elysia";
import { exactIntegers } from "./exact-integers.ts";

export type ParameterState =
  /** Does what its description says. */
  | "supported"
  /** Taken, changes nothing, and a warning says so. */
  | "no-effect"
  /** Refused with 400, except for the values that ask for nothing. */
  | "refused";

export interface Parameter<Schema extends TSchema = TSchema> {
  readonly state: ParameterState;
  readonly schema: Schema;
  /** What the field does; for a refused field, why it cannot be used. */
  readonly description: string;
}

export type ParameterTable = Readonly<Record<string, Parameter>>;

/** Options of our own on a schema, read by the error messages. */
export interface Expectation {
  /** What a value must be, to follow "must be": "a number from 0 to 2". */
  readonly expects: string;
}

export function supported<Schema extends TSchema>(schema: Schema, description: string): Parameter<Schema> {
  return { state: "supported", schema, description };
}

export function noEffect(description: string): Parameter<ReturnType<typeof optionalUnknown>> {
  return { state: "no-effect", schema: optionalUnknown(), description };
}

/** @param harmless the values that ask for nothing and are let through. */
export function refused<Schema extends TSchema>(harmless: Schema, reason: string) {
  const schema = t.Optional(t.Union([harmless, t.Null()], { refused: reason }));
  return { state: "refused" as const, schema, description: reason };
}

/** An optional field; clients send null for "not given". */
export function optional<Schema extends TSchema>(schema: Schema, expects: string) {
  return t.Optional(t.Union([schema, t.Null()], expecting(expects)));
}

/** Schema options that carry the words of the error message. */
export function expecting(expects: string): SchemaOptions {
  return { expects } satisfies Expectation;
}

function optionalUnknown() {
  return t.Optional(t.Unknown());
}

type SchemasOf<Table extends ParameterTable> = { -readonly [Field in keyof Table]: Table[Field]["schema"] };

/** Where a schema made of a table says which state each field is in; the API document passes it on. */
export const PARAMETER_STATE = "x-parameter-state";

/** The body schema of a table. Fields outside the table pass, to be warned about. */
export function bodySchema<Table extends ParameterTable>(table: Table): TObject<SchemasOf<Table>> {
  const properties = Object.fromEntries(
    Object.entries(table).map(([field, { schema, state, description }]) => [
      field,
      { ...exactIntegers(schema), description, [PARAMETER_STATE]: state },
    ]),
  );
  return t.Object(properties as unknown as SchemasOf<Table>, {
    additionalProperties: true,
    ...expecting("a JSON object"),
  });
}

export type BodyOf<Table extends ParameterTable> = Static<TObject<SchemasOf<Table>>>;

/** What was asked for and will not happen, one sentence per field. */
export function ignoredFields(
  body: Readonly<Record<string, unknown>>,
  table: ParameterTable,
): readonly string[] {
  const warnings: string[] = [];
  for (const [field, value] of Object.entries(body)) {
    if (value === null) continue;
    if (!Object.hasOwn(table, field)) warnings.push(`unknown parameter '${printable(field)}' is ignored`);
    else if (table[field]?.state === "no-effect") warnings.push(`parameter '${field}' has no effect here`);
  }
  return warnings;
}

/** Header-safe and short, whatever a client made up. */
export function printable(field: string): string {
  return field.replace(/[^\x20-\x7e]/g, "?").slice(0, 64);
}
