/** The `tojson` filter as `transformers` defines it: Python's `json.dumps` without HTML escapes. */

import { entriesOf, floatRepr, isText, itemsOf, str, type Value } from "./values.ts";

export interface JsonOptions {
  readonly ensureAscii: boolean;
  /** Spaces for each level, or the text to indent with; undefined keeps everything on one line. */
  readonly indent: string | undefined;
  readonly separators: readonly [item: string, key: string] | undefined;
  readonly sortKeys: boolean;
}

function quote(value: string, ensureAscii: boolean): string {
  const quoted = JSON.stringify(value);
  if (!ensureAscii) return quoted;
  return quoted.replace(/[\u007f-\uffff]/g, (unit) =>
    unit === "\u007f" ? unit : `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

function floatJson(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value < 0 ? "-Infinity" : "Infinity";
  return floatRepr(value);
}

/** Throws for what JSON has no form for (undefined, functions), as Python does. */
export function toJson(value: Value, options: JsonOptions): string {
  const { indent } = options;
  const [itemSeparator, keySeparator] = options.separators ?? [indent === undefined ? ", " : ",", ": "];
  const write = (item: Value, depth: number): string => {
    if (isText(item)) return quote(item.value, options.ensureAscii);
    const items = itemsOf(item);
    if (items !== undefined)
      return wrap(
        "[",
        items.map((child) => write(child, depth + 1)),
        "]",
        depth,
      );
    const entries = entriesOf(item);
    if (entries !== undefined) {
      const pairs = [...entries].map(([key, child]) => ({ key: String(key), child }));
      if (options.sortKeys) pairs.sort((a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0));
      const members = pairs.map(
        ({ key, child }) => quote(key, options.ensureAscii) + keySeparator + write(child, depth + 1),
      );
      return wrap("{", members, "}", depth);
    }
    switch (item.type) {
      case "NullValue":
        return "null";
      case "BooleanValue":
        return item.value === true ? "true" : "false";
      case "FloatValue":
        return floatJson(item.value as number);
      case "IntegerValue":
        return str(item);
      default:
        throw new TypeError(`Object of type ${item.type} is not JSON serializable`);
    }
  };
  const wrap = (open: string, members: readonly string[], close: string, depth: number): string => {
    if (members.length === 0) return open + close;
    if (indent === undefined) return open + members.join(itemSeparator) + close;
    const inner = `\n${indent.repeat(depth + 1)}`;
    return `${open}${inner}${members.join(itemSeparator + inner)}\n${indent.repeat(depth)}${close}`;
  };
  return write(value, 0);
}
