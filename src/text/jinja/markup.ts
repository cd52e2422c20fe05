/**
 * Text that `|safe` or `|escape` marked: what MarkupSafe's `Markup` does in Python. Text that is added to it, joined
 * by it or formatted into it is escaped for HTML, even where a template never asked for HTML.
 */

import { type Arguments, STRING_METHODS } from "./string-methods.ts";
import { isMarkup, isText, itemsOf, iterate, list, markup, str, text, type Value } from "./values.ts";

const ESCAPES: Readonly<Record<string, string>> = {
  "&": "&amp;",
  "<": "&lt;",
  ">": "&gt;",
  '"': "&#34;",
  "'": "&#39;",
};

/** Filters that leave marked text marked. */
const KEEPING: ReadonlySet<string> = new Set([
  "string",
  "trim",
  "upper",
  "lower",
  "capitalize",
  "indent",
  "reverse",
]);

/** The text with its HTML escaped, unless it is marked already. */
export function escapeHtml(value: Value): Value {
  if (isMarkup(value)) return value;
  return markup(str(value).replace(/[&<>"']/g, (character) => ESCAPES[character]!));
}

/** What a filter made of `operand`, marked if it stays so. */
export function keepMark(filter: string, operand: Value, result: Value): Value {
  return isMarkup(operand) && KEEPING.has(filter) ? marked(result) : result;
}

/** Text, and the texts of a list, marked; anything else as it is. */
export function marked(value: Value): Value {
  if (isText(value)) return markup(value.value);
  const items = itemsOf(value);
  return items === undefined ? value : list(items.map(marked));
}

/** A method of marked text. */
export function markupMethod(value: string, name: string, args: Arguments): Value {
  return marked(STRING_METHODS[name]!(value, escapedArguments(name, args)));
}

function escapedArguments(name: string, args: Arguments): Arguments {
  const { positional, named } = args;
  switch (name) {
    case "join": {
      const parts = positional[0] === undefined ? undefined : iterate(positional[0]);
      return parts === undefined ? args : { positional: [list(parts.map(escapeHtml))], named };
    }
    case "replace": {
      const [from, to, ...rest] = positional;
      if (from === undefined || to === undefined) return args;
      return { positional: [from, text(str(escapeHtml(to))), ...rest], named };
    }
    case "format":
      return {
        positional: positional.map(escapeHtml),
        named: new Map([...named].map(([key, item]) => [key, escapeHtml(item)])),
      };
    default:
      return args;
  }
}
