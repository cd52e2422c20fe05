/** Filters and methods whose result can be far longer than what they are given: refused before it is made. */

import type { RenderBudget } from "./limits.ts";
import type { Arguments } from "./string-methods.ts";
import { isInteger, isLazy, isText, itemsOf, str, type Value } from "./values.ts";

/** Throws `invalid_request` when `name` applied to `subject` would make more text than the budget has. */
export function requireRoom(name: string, subject: Value, args: Arguments, budget: RenderBudget): void {
  const length = lengthAfter(name, subject, args);
  if (length !== undefined) budget.requireCharacters(length);
}

function lengthAfter(name: string, subject: Value, { positional, named }: Arguments): number | undefined {
  const first = positional[0];
  switch (name) {
    case "replace": {
      const to = positional[1] ?? named.get("new");
      const from = first ?? named.get("old");
      if (!isText(subject) || from === undefined || to === undefined) return undefined;
      const [fromText, toText] = [str(from), str(to)];
      const growth = toText.length - fromText.length;
      if (growth <= 0) return undefined;
      return subject.value.length + occurrences(subject.value, fromText) * growth;
    }
    case "join":
      // A method of the separator, or a filter of the parts.
      if (isText(subject)) return first === undefined ? undefined : joinedLength(first, subject.value.length);
      return joinedLength(subject, separatorOf(first ?? named.get("d")).length);
    case "indent": {
      const width = first ?? named.get("width");
      if (!isText(subject) || width === undefined || !isInteger(width)) return undefined;
      return subject.value.length + (occurrences(subject.value, "\n") + 1) * width.value;
    }
    case "tojson": {
      const indent = positional[1] ?? named.get("indent");
      return indent !== undefined && isInteger(indent)
        ? indent.value * Math.max(1, itemsOf(subject)?.length ?? 0)
        : undefined;
    }
    case "zfill":
    case "center":
      return first !== undefined && isInteger(first) ? first.value : undefined;
    default:
      return undefined;
  }
}

function separatorOf(value: Value | undefined): string {
  return value === undefined ? "" : str(value);
}

function joinedLength(parts: Value, separatorLength: number): number {
  const items = isLazy(parts) ? parts.value : (itemsOf(parts) ?? []);
  const own = items.reduce((sum, item) => sum + (isText(item) ? item.value.length : 0), 0);
  return own + items.length * separatorLength;
}

function occurrences(text: string, part: string): number {
  if (part === "") return text.length + 1;
  let count = 0;
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) count += 1;
  return count;
}
