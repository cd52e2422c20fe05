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
function modulo(left: Value, right: Value): Value | undefined {
  if (isText(left)) {
    const safe = isMarkup(left);
    const values = (itemsOf(right) ?? [right]).map((value) => str(safe ? escapeHtml(value) : value));
    const formatted = left.value.replace(/%([sd%])/g, (_, kind: string) =>
      kind === "%" ? "%" : (values.shift() ?? ""),
    );
    return safe ? markup(formatted) : text(formatted);
  }
  if (!isInteger(left) || !isInteger(right) || right.value === 0) return undefined;
  return keyValue(left.value - right.value * Math.floor(left.value / right.value));
}
