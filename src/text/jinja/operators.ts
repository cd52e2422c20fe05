/** What operators and methods of dictionaries mean in Python, where the Jinja library has them otherwise. */

import type { Arguments } from "./string-methods.ts";
import {
  boolean,
  compare,
  entriesOf,
  equals,
  isInteger,
  isMissing,
  isText,
  itemsOf,
  iterate,
  keyValue,
  list,
  none,
  str,
  text,
  tuple,
  type Value,
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
      return () => list([...entries].map(([key, item]) => tuple([keyValue(key), item])));
    case "keys":
      return () => list([...entries.keys()].map(keyValue));
    case "values":
      return () => list([...entries.values()]);
    default:
      return undefined;
  }
}

/** The operators that mean something else in Python, or work on more; undefined for all others. */
export function pythonOperation(operator: string, left: Value, right: Value): Value | undefined {
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
      return repeated(left, right) ?? repeated(right, left);
    case "+":
      if (isText(left) !== isText(right)) throw new TypeError(`cannot add ${left.type} and ${right.type}`);
      return undefined;
    case "%":
      return modulo(left, right);
    default:
      return undefined;
  }
}

/** The tests (`is ...`) that the library lacks or narrows; undefined for all others. */
export function pythonTest(name: string, value: Value): boolean | undefined {
  switch (name) {
    case "iterable":
    case "sequence":
      return isMissing(value) || iterate(value) !== undefined;
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
  const items = itemsOf(container);
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

function repeated(value: Value, count: Value): Value | undefined {
  if (!isInteger(count)) return undefined;
  const times = Math.max(0, count.value);
  if (isText(value)) return text(value.value.repeat(times));
  const items = itemsOf(value);
  return items === undefined ? undefined : list(Array.from({ length: times }, () => items).flat());
}

/** The remainder has the sign of the divisor; on a string `%` formats. */
function modulo(left: Value, right: Value): Value | undefined {
  if (isText(left)) {
    const values = (itemsOf(right) ?? [right]).map(str);
    return text(
      left.value.replace(/%([sd%])/g, (_, kind: string) => (kind === "%" ? "%" : (values.shift() ?? ""))),
    );
  }
  if (!isInteger(left) || !isInteger(right) || right.value === 0) return undefined;
  return keyValue(left.value - right.value * Math.floor(left.value / right.value));
}
