/**
 * Elysia's integer takes a text of digits for a number, as forms send it. In JSON a text is no number, so schemas of
 * bodies, and what the API document says about them, have that half of it taken out.
 */

import { OptionalKind, type TSchema } from "@sinclair/typebox";

/** The schema with every integer in it a plain one. */
export function exactIntegers<Schema extends TSchema>(schema: Schema): Schema {
  return exact(schema) as Schema;
}

function exact(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(exact);
  if (typeof value !== "object" || value === null) return value;
  const integer = integerIn(value);
  if (integer !== undefined) return integer;
  // Symbols carry what kind of schema it is.
  const copy: Record<PropertyKey, unknown> = {};
  for (const key of Reflect.ownKeys(value)) {
    const part: unknown = Reflect.get(value, key);
    copy[key] = typeof key === "symbol" ? part : exact(part);
  }
  return copy;
}

/** The integer in `anyOf: [a text of digits, an integer]`, with what was said about both; undefined for anything else. */
export function integerIn(value: object): object | undefined {
  if (!("anyOf" in value) || !Array.isArray(value.anyOf) || value.anyOf.length !== 2) return undefined;
  const [text, integer] = value.anyOf as readonly Record<PropertyKey, unknown>[];
  if (text?.format !== "integer" || text.type !== "string" || integer?.type !== "integer") return undefined;
  const { anyOf: _, ...said } = value;
  const optional = OptionalKind in value ? { [OptionalKind]: "Optional" } : {};
  const words = Object.fromEntries(Object.entries(said));
  return { ...integer, ...words, ...optional };
}
