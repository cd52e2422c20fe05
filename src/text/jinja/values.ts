/**
 * The values of the Jinja library seen with Python's eyes: how they print, compare and convert. The library has
 * the value classes but does not export them, so they are taken from values it makes.
 */

import { Environment, Interpreter, parse, tokenize } from "@huggingface/jinja";

export type Value = ReturnType<Interpreter["evaluate"]>;
type Constructor = new (value?: unknown) => Value;

function constructorOf(sample: unknown): Constructor {
  return new Environment().set("sample", sample).constructor as Constructor;
}

const StringValue = constructorOf("");
const IntegerValue = constructorOf(1);
const FloatValue = constructorOf(0.5);
const BooleanValue = constructorOf(true);
const ArrayValue = constructorOf([]);
const ObjectValue = constructorOf({});
const NullValue = constructorOf(null);
const UndefinedValue = constructorOf(undefined);
const FunctionValue = constructorOf(() => null);

/** No JavaScript value becomes a tuple; the template language has a literal for one. */
const TupleValue = new Interpreter().evaluate(parse(tokenize("{{ (1, 2) }}")).body[0], new Environment())
  .constructor as Constructor;

/** Only that they can be derived from: what the library's classes are beyond that, `Value` says. */
type Base = new (value: unknown) => { readonly value: unknown };

class MarkupValue extends (StringValue as unknown as Base) {}

/**
 * What Python makes without making its items: it can be iterated over, but has no index and no JSON. The library
 * takes it for a list.
 */
class LazyValue extends (ArrayValue as unknown as Base) {
  readonly type = "LazyValue";
  declare value: Value[];
  /** As Python names it. */
  readonly kind: string;

  constructor(items: readonly Value[], kind: string) {
    super([...items]);
    this.kind = kind;
  }

  /** A generator gives its items once, and does not know how many they are. */
  get isGenerator(): boolean {
    return this.kind === "generator";
  }

  __bool__(): Value {
    return boolean(this.isGenerator || this.value.length > 0);
  }

  take(): Value[] {
    const items = this.value;
    if (this.isGenerator) this.value = [];
    return items;
  }
}

export const text = (value: string): Value => new StringValue(value);
/** Text whose HTML is known to be safe; see markup.ts. */
export const markup = (value: string): Value => new MarkupValue(value) as unknown as Value;
export const generator = (items: readonly Value[]): Value => lazy(items, "generator");
/** `kind` is `dict_keys`, `dict_values` or `dict_items`. */
export const view = (items: readonly Value[], kind: string): Value => lazy(items, kind);
const lazy = (items: readonly Value[], kind: string): Value => new LazyValue(items, kind) as unknown as Value;
export const integer = (value: number): Value => new IntegerValue(value);
export const float = (value: number): Value => new FloatValue(value);
export const boolean = (value: boolean): Value => new BooleanValue(value);
export const list = (items: readonly Value[]): Value => new ArrayValue(items);
export const tuple = (items: readonly Value[]): Value => new TupleValue(items);
export const mapping = (entries: ReadonlyMap<unknown, Value>): Value => new ObjectValue(entries);
export const none = (): Value => new NullValue();
export const missing = (): Value => new UndefinedValue();
/** The last argument is a KeywordArgumentsValue where the call had keyword arguments. */
export const callable = (call: (args: Value[]) => Value): Value => new FunctionValue(call);

export const isText = (value: Value): value is Value & { value: string } => value.type === "StringValue";
export const isMarkup = (value: unknown): boolean => value instanceof MarkupValue;
export const isLazy = (value: unknown): value is LazyValue => value instanceof LazyValue;
export const isInteger = (value: Value): value is Value & { value: number } => value.type === "IntegerValue";
export const isMissing = (value: Value): boolean => value.type === "UndefinedValue";
export const isNone = (value: Value): boolean => value.type === "NullValue";

/** The items of a list or tuple. */
export function itemsOf(value: Value): Value[] | undefined {
  return value.type === "ArrayValue" || value.type === "TupleValue" ? (value.value as Value[]) : undefined;
}

/** The entries of a dictionary. Keys are strings, or numbers where the template wrote numbers. */
export function entriesOf(value: Value): Map<unknown, Value> | undefined {
  return value.type === "ObjectValue" ? (value.value as unknown as Map<unknown, Value>) : undefined;
}

/** The key as a value again. */
export function keyValue(key: unknown): Value {
  return typeof key === "number" ? integer(key) : text(String(key));
}

/** Whether Python can iterate over it. */
export function isIterable(value: Value): boolean {
  return isText(value) || isLazy(value) || (itemsOf(value) ?? entriesOf(value)) !== undefined;
}

/**
 * What a `for` loop, `join` or `list` gets from a value; undefined when Python cannot iterate over it. Of a generator
 * nothing is left after it.
 */
export function iterate(value: Value): Value[] | undefined {
  if (isLazy(value)) return value.take();
  const entries = entriesOf(value);
  if (entries !== undefined) return [...entries.keys()].map(keyValue);
  if (isText(value)) return Array.from(value.value, text);
  return itemsOf(value);
}

/** A boxed number is a float even when it is whole: JSON's `1.0`, which JavaScript reads as 1. */
export function toValue(input: unknown): Value {
  if (input === null) return none();
  if (input instanceof Number) return float(Number(input));
  switch (typeof input) {
    case "string":
      return text(input);
    case "number":
      return Number.isInteger(input) ? integer(input) : float(input);
    case "boolean":
      return boolean(input);
    case "undefined":
      return missing();
    case "object":
      if (Array.isArray(input)) return list(input.map(toValue));
      return mapping(new Map(Object.entries(input).map(([key, value]) => [key, toValue(value)])));
    default:
      throw new TypeError(`a ${typeof input} cannot be given to a chat template`);
  }
}

/** Python's `repr` of a float. */
export function floatRepr(value: number): string {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value < 0 ? "-inf" : "inf";
  if (Object.is(value, -0)) return "-0.0";
  const [digits, exponentText] = value.toExponential().split("e") as [string, string];
  const exponent = Number(exponentText);
  if (exponent >= -4 && exponent < 16) return Number.isInteger(value) ? `${value}.0` : String(value);
  const magnitude = String(Math.abs(exponent)).padStart(2, "0");
  return `${digits}e${exponent < 0 ? "-" : "+"}${magnitude}`;
}

const ESCAPES: Readonly<Record<string, string>> = { "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" };

function textRepr(value: string): string {
  const quote = value.includes("'") && !value.includes('"') ? '"' : "'";
  let repr = quote;
  for (const character of value) {
    const code = character.codePointAt(0)!;
    if (character === quote) repr += `\\${quote}`;
    else if (ESCAPES[character] !== undefined) repr += ESCAPES[character];
    else if (character === " " || !/[\p{C}\p{Z}]/u.test(character)) repr += character;
    else if (code <= 0xff) repr += `\\x${code.toString(16).padStart(2, "0")}`;
    else if (code <= 0xffff) repr += `\\u${code.toString(16).padStart(4, "0")}`;
    else repr += `\\U${code.toString(16).padStart(8, "0")}`;
  }
  return repr + quote;
}

/** Python's `repr`. */
export function repr(value: Value): string {
  if (isText(value)) return isMarkup(value) ? `Markup(${textRepr(value.value)})` : textRepr(value.value);
  if (isLazy(value)) {
    return value.isGenerator ? "<generator object>" : `${value.kind}([${value.value.map(repr).join(", ")}])`;
  }
  const items = itemsOf(value);
  if (items !== undefined) {
    const body = items.map(repr).join(", ");
    if (value.type === "TupleValue") return items.length === 1 ? `(${body},)` : `(${body})`;
    return `[${body}]`;
  }
  const entries = entriesOf(value);
  if (entries !== undefined) {
    return `{${[...entries].map(([key, item]) => `${repr(keyValue(key))}: ${repr(item)}`).join(", ")}}`;
  }
  return str(value);
}

/** Python's `str`: what printing a value in a template writes. */
export function str(value: Value): string {
  if (isLazy(value)) return repr(value as Value);
  switch (value.type) {
    case "StringValue":
      return value.value as string;
    case "NullValue":
      return "None";
    case "UndefinedValue":
      return "";
    case "BooleanValue":
      return value.value === true ? "True" : "False";
    case "FloatValue":
      return floatRepr(value.value as number);
    case "ArrayValue":
    case "TupleValue":
    case "ObjectValue":
      return repr(value);
    default:
      return value.toString();
  }
}

function numberOf(value: Value): number | undefined {
  if (value.type === "BooleanValue") return value.value === true ? 1 : 0;
  return value.type === "IntegerValue" || value.type === "FloatValue" ? (value.value as number) : undefined;
}

/** Python's `==`. */
export function equals(left: Value, right: Value): boolean {
  if (isLazy(left) || isLazy(right)) return left === right;
  const leftNumber = numberOf(left);
  if (leftNumber !== undefined) return leftNumber === numberOf(right);
  const leftItems = itemsOf(left);
  if (leftItems !== undefined) {
    const rightItems = itemsOf(right);
    return (
      left.type === right.type &&
      leftItems.length === rightItems?.length &&
      leftItems.every((item, index) => equals(item, rightItems[index]!))
    );
  }
  const leftEntries = entriesOf(left);
  if (leftEntries !== undefined) {
    const rightEntries = entriesOf(right);
    if (leftEntries.size !== rightEntries?.size) return false;
    return [...leftEntries].every(([key, item]) => {
      const other = rightEntries.get(key);
      return other !== undefined && equals(item, other);
    });
  }
  return left.type === right.type && left.value === right.value;
}

/** Python's order of numbers and of strings; undefined where Python raises TypeError. */
export function compare(left: Value, right: Value): number | undefined {
  const leftNumber = numberOf(left);
  const rightNumber = numberOf(right);
  if (leftNumber !== undefined && rightNumber !== undefined) return leftNumber - rightNumber;
  if (!isText(left) || !isText(right)) return undefined;
  return left.value === right.value ? 0 : byCodePoint(left.value, right.value);
}

/** Strings are ordered by code points, which UTF-16 units do not keep above U+FFFF. */
function byCodePoint(left: string, right: string): number {
  for (let at = 0; at < left.length && at < right.length; at++) {
    if (left[at] !== right[at]) return left.codePointAt(at)! - right.codePointAt(at)!;
  }
  return left.length - right.length;
}
