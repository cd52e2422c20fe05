/** Filters that the Jinja library lacks, or that it applies to fewer kinds of values than Jinja does. */

import { escapeHtml } from "./markup.ts";
import { toJson } from "./python-json.ts";
import { type Arguments, capitalize, strip, title } from "./string-methods.ts";
import {
  boolean,
  compare,
  entriesOf,
  equals,
  float,
  generator,
  integer,
  isInteger,
  isLazy,
  isMissing,
  isNone,
  isText,
  itemsOf,
  iterate,
  keyValue,
  list,
  mapping,
  markup,
  missing,
  str,
  text,
  tuple,
  type Value,
} from "./values.ts";

type Filter = (value: Value, args: Arguments) => Value;

function argument(args: Arguments, index: number, name: string): Value | undefined {
  return args.positional[index] ?? args.named.get(name);
}

function sequence(value: Value, filter: string): Value[] {
  if (isMissing(value)) return [];
  const items = iterate(value);
  if (items === undefined) throw new TypeError(`${filter}: a ${value.type} is not iterable`);
  return items;
}

/** The length as Python's `len` counts it: code points of a string. */
function lengthOf(value: Value): number {
  if (isLazy(value) && value.isGenerator) throw new TypeError("length: a generator has none");
  if (!isText(value)) return sequence(value, "length").length;
  let count = 0;
  for (const _ of value.value) count += 1;
  return count;
}

function indentOf(value: Value | undefined): string | undefined {
  if (value === undefined || isNone(value)) return undefined;
  return isInteger(value) ? " ".repeat(value.value) : str(value);
}

function separatorsOf(value: Value | undefined): readonly [string, string] | undefined {
  const parts = value === undefined ? undefined : itemsOf(value);
  return parts === undefined ? undefined : [str(parts[0]!), str(parts[1]!)];
}

function tojson(value: Value, args: Arguments): Value {
  return text(
    toJson(value, {
      ensureAscii: argument(args, 0, "ensure_ascii")?.value === true,
      indent: indentOf(argument(args, 1, "indent")),
      separators: separatorsOf(argument(args, 2, "separators")),
      sortKeys: argument(args, 3, "sort_keys")?.value === true,
    }),
  );
}

/** `a.b.0` of an item, as the `attribute` arguments of filters name it. */
export function attributeOf(item: Value, path: string): Value {
  let value = item;
  for (const name of path.split(".")) {
    const items = itemsOf(value);
    value = (items === undefined ? entriesOf(value)?.get(name) : items[Number(name)]) ?? missing();
  }
  return value;
}

function keyed(args: Arguments, index: number): (item: Value) => Value {
  const attribute = argument(args, index, "attribute");
  return attribute === undefined || isNone(attribute)
    ? (item) => item
    : (item) => attributeOf(item, str(attribute));
}

function extreme(name: string, sign: 1 | -1): Filter {
  return (value, args) => {
    const key = keyed(args, 1);
    let best: Value | undefined;
    for (const item of sequence(value, name)) {
      if (best === undefined) best = item;
      else {
        const order = compare(key(item), key(best));
        if (order === undefined) throw new TypeError(`${name}: values cannot be compared`);
        if (order * sign > 0) best = item;
      }
    }
    return best ?? missing();
  };
}

function unique(value: Value, args: Arguments): Value {
  const key = keyed(args, 1);
  const folded = (item: Value): Value => (isText(item) ? text(item.value.toLowerCase()) : item);
  const seen: Value[] = [];
  return generator(
    sequence(value, "unique").filter((item) => {
      const mark = folded(key(item));
      if (seen.some((other) => equals(other, mark))) return false;
      seen.push(mark);
      return true;
    }),
  );
}

function sum(value: Value, args: Arguments): Value {
  const key = keyed(args, 0);
  let total = 0;
  let whole = true;
  for (const item of sequence(value, "sum")) {
    const part = key(item);
    if (typeof part.value !== "number") throw new TypeError("sum: not a number");
    whole &&= isInteger(part);
    total += part.value;
  }
  return whole ? integer(total) : float(total);
}

function indent(value: Value, args: Arguments): Value {
  const width = argument(args, 0, "width");
  const prefix = width === undefined ? "    " : (indentOf(width) ?? "");
  const first = argument(args, 1, "first")?.value === true;
  const blank = argument(args, 2, "blank")?.value === true;
  const lines = str(value).split("\n");
  return text(
    lines
      .map((line, index) => ((index === 0 ? first : blank || line !== "") ? prefix + line : line))
      .join("\n"),
  );
}

function round(value: Value, args: Arguments): Value {
  const precision = Number(argument(args, 0, "precision")?.value ?? 0);
  const method = String(argument(args, 1, "method")?.value ?? "common");
  const scale = 10 ** precision;
  const scaled = Number(value.value) * scale;
  if (method === "ceil") return float(Math.ceil(scaled) / scale);
  if (method === "floor") return float(Math.floor(scaled) / scale);
  // Python rounds halves to even.
  const down = Math.floor(scaled);
  const up = scaled - down > 0.5 || (scaled - down === 0.5 && down % 2 !== 0);
  return float((up ? down + 1 : down) / scale);
}

function items(value: Value): Value {
  const entries = entriesOf(value);
  if (entries === undefined && !isMissing(value))
    throw new TypeError("items: can only get item pairs from a mapping");
  return generator([...(entries ?? [])].map(([key, item]) => tuple([keyValue(key), item])));
}

function dictsort(value: Value, args: Arguments): Value {
  const entries = entriesOf(value);
  if (entries === undefined) throw new TypeError("dictsort: not a mapping");
  const caseSensitive = argument(args, 0, "case_sensitive")?.value === true;
  const byValue = argument(args, 1, "by")?.value === "value";
  const sign = argument(args, 2, "reverse")?.value === true ? -1 : 1;
  const rank = (pair: readonly [Value, Value]): Value => {
    const subject = pair[byValue ? 1 : 0];
    return isText(subject) && !caseSensitive ? text(subject.value.toLowerCase()) : subject;
  };
  const pairs = [...entries].map(([key, item]) => [keyValue(key), item] as const);
  pairs.sort((left, right) => {
    const order = compare(rank(left), rank(right));
    if (order === undefined) throw new TypeError("dictsort: values cannot be compared");
    return sign * order;
  });
  return list(pairs.map(tuple));
}

function first(value: Value): Value {
  return sequence(value, "first")[0] ?? missing();
}

function reverse(value: Value): Value {
  const reversed = sequence(value, "reverse").toReversed();
  if (isText(value)) return text(reversed.map(str).join(""));
  return isLazy(value) && value.isGenerator ? list(reversed) : generator(reversed);
}

/** Each filter, by its Jinja name. Filters not listed are the library's. */
export const FILTERS: Readonly<Record<string, Filter>> = {
  tojson,
  string: (value) => text(str(value)),
  trim: (value, args) => {
    const characters = argument(args, 0, "chars");
    return text(
      strip(str(value), "both", characters === undefined || isNone(characters) ? undefined : str(characters)),
    );
  },
  upper: (value) => text(str(value).toUpperCase()),
  lower: (value) => text(str(value).toLowerCase()),
  capitalize: (value) => text(capitalize(str(value))),
  title: (value) => text(title(str(value))),
  length: (value) => integer(lengthOf(value)),
  count: (value) => integer(lengthOf(value)),
  list: (value) => list(sequence(value, "list")),
  first,
  last: (value) => {
    if (isLazy(value) && value.isGenerator)
      throw new TypeError("last: a generator cannot be read from its end");
    return sequence(value, "last").at(-1) ?? missing();
  },
  reverse,
  join: (value, args) => {
    const key = keyed(args, 1);
    const separator = argument(args, 0, "d");
    const parts = sequence(value, "join").map((item) => str(key(item)));
    return text(parts.join(separator === undefined ? "" : str(separator)));
  },
  items,
  dictsort,
  dict: (value) =>
    mapping(new Map(sequence(value, "dict").map((pair) => [itemsOf(pair)![0]!.value, itemsOf(pair)![1]!]))),
  min: extreme("min", -1),
  max: extreme("max", 1),
  unique,
  sum,
  indent,
  round,
  e: escapeHtml,
  escape: escapeHtml,
  forceescape: (value) => escapeHtml(text(str(value))),
  safe: (value) => markup(str(value)),
  bool: (value) => boolean(value.__bool__().value),
};
