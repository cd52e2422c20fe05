/** The methods of Python's `str` that templates use, on well-formed JavaScript strings. */

import {
  boolean,
  integer,
  isInteger,
  isNone,
  isText,
  itemsOf,
  iterate,
  list,
  str,
  text,
  tuple,
  type Value,
} from "./values.ts";

const WHITE_SPACE = "\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000";
const SPACE = new RegExp(`[${WHITE_SPACE}]`);
const SPACES = new RegExp(`[${WHITE_SPACE}]+`, "u");
const LINE_END = "\\r\\n|[\\n\\r\\v\\f\\x1c-\\x1e\\x85\\u2028\\u2029]";
const LINE_ENDS = new RegExp(LINE_END);

type Side = "left" | "right" | "both";

/** Python's strip: white space, or any of the characters given. */
export function strip(value: string, side: Side, characters?: string): string {
  if (characters === undefined) {
    // No regular expression: one for the end takes the square of the white space inside.
    let start = 0;
    let end = value.length;
    if (side !== "right") while (start < end && SPACE.test(value[start]!)) start++;
    if (side !== "left") while (end > start && SPACE.test(value[end - 1]!)) end--;
    return value.slice(start, end);
  }
  const set = new Set(characters);
  const all = Array.from(value);
  let start = 0;
  let end = all.length;
  if (side !== "right") while (start < end && set.has(all[start]!)) start++;
  if (side !== "left") while (end > start && set.has(all[end - 1]!)) end--;
  return all.slice(start, end).join("");
}

function splitSpaces(value: string, limit: number): string[] {
  const parts: string[] = [];
  let rest = strip(value, "left");
  while (rest !== "") {
    const space = parts.length === limit ? null : SPACES.exec(rest);
    if (space === null) {
      parts.push(limit >= 0 && parts.length === limit ? rest : strip(rest, "right"));
      break;
    }
    parts.push(rest.slice(0, space.index));
    rest = rest.slice(space.index + space[0].length);
  }
  return parts;
}

function split(value: string, separator: string | undefined, limit: number): string[] {
  if (separator === undefined) return splitSpaces(value, limit);
  if (separator === "") throw new Error("empty separator");
  const parts = value.split(separator);
  return limit < 0 || parts.length <= limit + 1
    ? parts
    : [...parts.slice(0, limit), parts.slice(limit).join(separator)];
}

function splitFromRight(value: string, separator: string | undefined, limit: number): string[] {
  const parts = split(value, separator, -1);
  if (limit < 0 || parts.length <= limit + 1) return parts;
  const kept = parts.length - limit;
  return [parts.slice(0, kept).join(separator ?? " "), ...parts.slice(kept)];
}

function splitLines(value: string, keepEnds: boolean): string[] {
  const lines: string[] = [];
  let rest = value;
  while (rest !== "") {
    const end = LINE_ENDS.exec(rest);
    if (end === null) return [...lines, rest];
    lines.push(rest.slice(0, end.index) + (keepEnds ? end[0] : ""));
    rest = rest.slice(end.index + end[0].length);
  }
  return lines;
}

function replace(value: string, from: string, to: string, limit: number): string {
  if (limit < 0) return value.replaceAll(from, () => to);
  return split(value, from, limit).join(to);
}

export const capitalize = (value: string): string => {
  const [first = "", ...rest] = Array.from(value);
  return first.toUpperCase() + rest.join("").toLowerCase();
};

export const title = (value: string): string =>
  value.toLowerCase().replace(/\p{L}+/gu, (word) => capitalize(word));

/** Arguments of a call, by position and by name. */
export interface Arguments {
  readonly positional: readonly Value[];
  readonly named: ReadonlyMap<string, Value>;
}

function textAt(args: Arguments, index: number, name: string): string | undefined {
  const value = args.positional[index] ?? args.named.get(name);
  if (value === undefined || isNone(value)) return undefined;
  if (!isText(value)) throw new TypeError(`${name} must be a string`);
  return value.value;
}

function integerAt(args: Arguments, index: number, name: string, otherwise: number): number {
  const value = args.positional[index] ?? args.named.get(name);
  if (value === undefined) return otherwise;
  if (!isInteger(value)) throw new TypeError(`${name} must be an integer`);
  return value.value;
}

function required(args: Arguments, index: number, name: string): string {
  const value = textAt(args, index, name);
  if (value === undefined) throw new TypeError(`missing argument ${name}`);
  return value;
}

function anyOf(args: Arguments, test: (part: string) => boolean): Value {
  const first = args.positional[0];
  const choices = first === undefined ? undefined : (itemsOf(first) ?? [first]);
  if (choices === undefined) throw new TypeError("missing argument");
  return boolean(choices.some((choice) => isText(choice) && test(choice.value)));
}

/** `{}` and `{0}` and `{name}`; throws for format specifications, which are not built. */
function format(value: string, args: Arguments): string {
  let next = 0;
  return value.replace(/\{\{|\}\}|\{([^{}]*)\}/g, (whole, field: string | undefined) => {
    if (field === undefined) return whole[0]!;
    if (!/^\w*$/.test(field)) throw new Error(`format: unsupported field ${whole}`);
    const argument = /^\d*$/.test(field)
      ? args.positional[field === "" ? next++ : Number(field)]
      : args.named.get(field);
    if (argument === undefined) throw new Error(`format has no argument for {${field}}`);
    return str(argument);
  });
}

function partition(value: string, separator: string, at: number): string[] | undefined {
  return at < 0 ? undefined : [value.slice(0, at), separator, value.slice(at + separator.length)];
}

type Method = (value: string, args: Arguments) => Value;

const words = (parts: readonly string[]): Value => list(parts.map(text));
const matches =
  (pattern: RegExp): Method =>
  (value) =>
    boolean(value !== "" && pattern.test(value));
/** Positions count code points. */
const position = (value: string, at: number): number => (at < 0 ? -1 : Array.from(value.slice(0, at)).length);

/** Each method, by its Python name. */
export const STRING_METHODS: Readonly<Record<string, Method>> = {
  strip: (value, args) => text(strip(value, "both", textAt(args, 0, "chars"))),
  lstrip: (value, args) => text(strip(value, "left", textAt(args, 0, "chars"))),
  rstrip: (value, args) => text(strip(value, "right", textAt(args, 0, "chars"))),
  split: (value, args) => words(split(value, textAt(args, 0, "sep"), integerAt(args, 1, "maxsplit", -1))),
  rsplit: (value, args) =>
    words(splitFromRight(value, textAt(args, 0, "sep"), integerAt(args, 1, "maxsplit", -1))),
  splitlines: (value, args) =>
    words(splitLines(value, (args.positional[0] ?? args.named.get("keepends"))?.value === true)),
  replace: (value, args) =>
    text(replace(value, required(args, 0, "old"), required(args, 1, "new"), integerAt(args, 2, "count", -1))),
  upper: (value) => text(value.toUpperCase()),
  lower: (value) => text(value.toLowerCase()),
  capitalize: (value) => text(capitalize(value)),
  title: (value) => text(title(value)),
  startswith: (value, args) => anyOf(args, (part) => value.startsWith(part)),
  endswith: (value, args) => anyOf(args, (part) => value.endsWith(part)),
  find: (value, args) => integer(position(value, value.indexOf(required(args, 0, "sub")))),
  rfind: (value, args) => integer(position(value, value.lastIndexOf(required(args, 0, "sub")))),
  index: (value, args) => {
    const at = value.indexOf(required(args, 0, "sub"));
    if (at < 0) throw new Error("substring not found");
    return integer(position(value, at));
  },
  count: (value, args) => integer(split(value, required(args, 0, "sub"), -1).length - 1),
  join: (value, args) => {
    const parts = args.positional[0] === undefined ? undefined : iterate(args.positional[0]);
    if (parts === undefined) throw new TypeError("can only join an iterable");
    return text(parts.map(str).join(value));
  },
  format: (value, args) => text(format(value, args)),
  partition: (value, args) => {
    const separator = required(args, 0, "sep");
    return tuple((partition(value, separator, value.indexOf(separator)) ?? [value, "", ""]).map(text));
  },
  rpartition: (value, args) => {
    const separator = required(args, 0, "sep");
    return tuple((partition(value, separator, value.lastIndexOf(separator)) ?? ["", "", value]).map(text));
  },
  removeprefix: (value, args) => {
    const prefix = required(args, 0, "prefix");
    return text(value.startsWith(prefix) ? value.slice(prefix.length) : value);
  },
  removesuffix: (value, args) => {
    const suffix = required(args, 0, "suffix");
    return text(suffix !== "" && value.endsWith(suffix) ? value.slice(0, -suffix.length) : value);
  },
  zfill: (value, args) => text(value.padStart(integerAt(args, 0, "width", 0), "0")),
  isdigit: matches(/^\p{Nd}+$/u),
  isnumeric: matches(/^\p{N}+$/u),
  isalpha: matches(/^\p{L}+$/u),
  isalnum: matches(/^[\p{L}\p{N}]+$/u),
  isspace: matches(new RegExp(`^[${WHITE_SPACE}]+$`, "u")),
  isupper: (value) => boolean(/\p{Lu}/u.test(value) && value === value.toUpperCase()),
  islower: (value) => boolean(/\p{Ll}/u.test(value) && value === value.toLowerCase()),
};
