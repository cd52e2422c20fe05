/** What operators and methods of dictionaries mean in Python, where the Jinja library has them otherwise. */

import type { RenderBudget } from "./limits.ts";
import { escapeHtml, marked } from "./markup.ts";
import type { Arguments } from "./string-methods.ts";
import {
  boolean,
  compare,
  entriesOf,
  equals,
  isInteger,
  isIterable,
  isLazy,
  isMarkup,
  isMissing,
  isText,
  itemsOf,
  iterate,
  keyValue,
  list,
  markup,
  none,
  str,
  text,
  tuple,
  type Value,
  view,
} from "./values.ts";

/** The methods of Python's `dict` that templates use; undefined for other names. */
export function dictionaryMethod(
  entries: ReadonlyMap<unknown, Value>,
  name: string,
): ((args: Arguments) => Value) | undefined {
  switch (name) {
    case "get":
      return ({ positional: [key, otherwise] }) => entries.get(key?.value) ?? otherwise ?? none();
    case "items":
      return () =>
        view(
          [...entries].map(([key, item]) => tuple([keyValue(key), item])),
          "dict_items",
        );
    case "keys":
      return () => view([...entries.keys()].map(keyValue), "dict_keys");
    case "values":
      return () => view([...entries.values()], "dict_values");
    default:
      return undefined;
  }
}

/** The operators that mean something else in Python, or work on more; undefined for all others. */
export function pythonOperation(
  operator: string,
  left: Value,
  right: Value,
  budget: RenderBudget,
): Value | undefined {
  switch (operator) {
    case "==":
      return boolean(equals(left, right));
    case "!=":
      return boolean(!equals(left, right));
    case "~":
      return text(str(left) + str(right));
    case "in":
      return contains(right, left);
    case "not in": {
      const inside = contains(right, left);
      return inside === undefined ? undefined : boolean(inside.value !== true);
    }
    case "<":
    case "<=":
    case ">":
    case ">=":
      return ordered(operator, left, right);
    case "*":
      return repeated(left, right, budget) ?? repeated(right, left, budget);
    case "+":
      if (isText(left) !== isText(right) || isLazy(left) || isLazy(right))
        throw new TypeError(`cannot add ${left.type} and ${right.type}`);
      if (isMarkup(left) || isMarkup(right)) return markup(str(escapeHtml(left)) + str(escapeHtml(right)));
      return undefined;
    case "/":
    case "//":
      if (right.value === 0) throw new RangeError("division by zero");
      return undefined;
    case "%":
      if (right.value === 0 && !isText(left)) throw new RangeError("modulo by zero");
      return modulo(left, right, budget);
    default:
      return undefined;
  }
}

/** The tests (`is ...`) that the library lacks or narrows; undefined for all others. */
export function pythonTest(name: string, value: Value): boolean | undefined {
  switch (name) {
    case "iterable":
      return isMissing(value) || isIterable(value);
    case "sequence":
      return isMissing(value) || (isIterable(value) && !isLazy(value));
    case "float":
      return value.type === "FloatValue";
    case "number":
      return ["IntegerValue", "FloatValue", "BooleanValue"].includes(value.type);
    default:
      return undefined;
  }
}

function contains(container: Value, item: Value): Value | undefined {
  const entries = entriesOf(container);
  if (entries !== undefined) return boolean(entries.has(item.value));
  const items = isLazy(container) ? iterate(container as Value) : itemsOf(container);
  if (items !== undefined) return boolean(items.some((other) => equals(other, item)));
  if (isMissing(container)) return boolean(false);
  return undefined;
}

function ordered(operator: string, left: Value, right: Value): Value | undefined {
  const order = compare(left, right);
  if (order === undefined) return undefined;
  if (operator === "<") return boolean(order < 0);
  if (operator === "<=") return boolean(order <= 0);
  return boolean(operator === ">" ? order > 0 : order >= 0);
}

function repeated(value: Value, count: Value, budget: RenderBudget): Value | undefined {
  if (!isInteger(count)) return undefined;
  const times = Math.max(0, count.value);
  if (isText(value)) {
    budget.requireCharacters(value.value.length * times);
    const repetition = text(value.value.repeat(times));
    return isMarkup(value) ? marked(repetition) : repetition;
  }
  const items = itemsOf(value);
  if (items === undefined) return undefined;
  budget.requireItems(items.length * times);
  return list(Array.from({ length: times }, () => items).flat());
}

/** The remainder has the sign of the divisor; on a string `%` formats. */
function modulo(left: Value, right: Value, budget: RenderBudget): Value | undefined {
  if (isText(left)) {
    const safe = isMarkup(left);
    const values = itemsOf(right) ?? [right];
    const formatted = percentFormat(left.value, safe ? values.map(escapedText) : values, budget);
    return safe ? markup(formatted) : text(formatted);
  }
  if (!isInteger(left) || !isInteger(right) || right.value === 0) return undefined;
  return keyValue(left.value - right.value * Math.floor(left.value / right.value));
}

/** Numbers keep their form in marked text; all else is escaped. */
function escapedText(value: Value): Value {
  return typeof value.value === "number" ? value : escapeHtml(value);
}

const PLACEHOLDER = /%([-+ 0]*)(\d+)?(?:\.(\d+))?(.)?/gs;

/** Python's `%` on a string: `%s`, `%d`, `%i`, `%f` and `%%`, with flags, width and precision. Throws for others. */
function percentFormat(format: string, values: readonly Value[], budget: RenderBudget): string {
  let next = 0;
  const result = format.replace(PLACEHOLDER, (whole, flags: string, width = "0", digits, kind) => {
    if (kind === "%") return "%";
    const value = values[next++];
    if (value === undefined) throw new TypeError("not enough arguments for format string");
    const body = placed(value, kind, digits as string | undefined, whole);
    const signed = kind !== "s" && !body.startsWith("-") ? (/[+ ]/.exec(flags)?.[0] ?? "") + body : body;
    const size = Number(width);
    budget.requireCharacters(size);
    if (flags.includes("-")) return signed.padEnd(size);
    if (!flags.includes("0") || kind === "s") return signed.padStart(size);
    const sign = /^[-+ ]?/.exec(signed)![0];
    return sign + signed.slice(sign.length).padStart(size - sign.length, "0");
  });
  if (next < values.length) throw new TypeError("not all arguments converted during string formatting");
  return result;
}

function placed(value: Value, kind: string, digits: string | undefined, whole: string): string {
  if (kind === "s") return digits === undefined ? str(value) : str(value).slice(0, Number(digits));
  if (!["d", "i", "f"].includes(kind)) throw new TypeError(`unsupported format ${whole}`);
  const number = value.type === "BooleanValue" ? Number(value.value) : value.value;
  if (typeof number !== "number") throw new TypeError(`${whole}: a number is required`);
  return kind === "f" ? number.toFixed(Number(digits ?? 6)) : String(Math.trunc(number));
}
