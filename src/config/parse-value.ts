/** Turns the text of a flag or variable into the value of a setting, or says what would be allowed. */

import { didYouMean } from "./suggest.ts";
import { parseProcessorList } from "./threads.ts";
import type { SettingDeclaration, SettingType, SwitchRule } from "./types.ts";

export type SettingValue = string | number | bigint | boolean | readonly string[] | readonly number[];

export type ParsedValue =
  | { readonly ok: true; readonly value: SettingValue }
  | { readonly ok: false; readonly allowed: string };

const U64_MAX = 2n ** 64n - 1n;
const BOOLEANS = ["true", "false"] as const;

/** The value of a text. `count` and `switch` settings read the text of their variable. */
export function parseValue(type: SettingType, text: string): ParsedValue {
  switch (type.kind) {
    case "integer":
    case "count": {
      const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
      const min = type.kind === "integer" ? type.min : 0;
      return value >= min && value <= type.max ? accept(value) : refuse(type, text);
    }
    case "integers": {
      if (type.isSet === true) return parseSet(type, text);
      const entries = text.split(",").map((entry) => parseValue({ ...type, kind: "integer" }, entry));
      const values = entries.map((entry) => (entry.ok ? Number(entry.value) : Number.NaN));
      return values.some(Number.isNaN) ? refuse(type, text) : accept(values);
    }
    case "number": {
      const value = /^[+-]?(\d+\.?\d*|\.\d+)$/.test(text.trim()) ? Number(text) : Number.NaN;
      return value >= type.min && value <= type.max ? accept(value) : refuse(type, text);
    }
    case "u64": {
      const value = /^\d+$/.test(text.trim()) ? BigInt(text) : -1n;
      return value >= 0n && value <= U64_MAX ? accept(value) : refuse(type, text);
    }
    case "text":
      return text.trim() === "" || type.pattern?.test(text) === false ? refuse(type, text) : accept(text);
    case "list": {
      const entries = text.split(type.separator ?? ",").map((entry) => entry.trim());
      return entries.includes("") ? refuse(type, text) : accept(entries);
    }
    case "path": {
      const fits = type.extensions?.some((extension) => text.endsWith(extension)) ?? true;
      return text.trim() === "" || !fits ? refuse(type, text) : accept(text);
    }
    case "url":
      return /^https?:\/\//.test(text) && URL.canParse(text) ? accept(text) : refuse(type, text);
    case "choice": {
      const choice = type.choices.find((candidate) => String(candidate) === text);
      return choice === undefined ? refuse(type, text) : accept(choice);
    }
    case "boolean":
      return text === "true" || text === "false" ? accept(text === "true") : refuse(type, text);
    case "switch":
      return accept(isSwitchedOn(type.on, text));
    default:
      return type satisfies never;
  }
}

/** `0-2,5` with the spaces that people leave; no range runs backwards. */
function parseSet(type: SettingType & { readonly kind: "integers" }, text: string): ParsedValue {
  const entries = text.split(",").map((entry) => {
    const [, first, last = first] = /^\s*(\d+)(?:\s*-\s*(\d+))?\s*$/.exec(entry) ?? [];
    return { first: Number(first), last: Number(last) };
  });
  const isUsable = entries.every(({ first, last }) => first >= type.min && last <= type.max && first <= last);
  if (!isUsable) return refuse(type, text);
  const numbers = parseProcessorList(entries.map(({ first, last }) => `${first}-${last}`).join(","));
  return accept([...new Set(numbers)].sort((a, b) => a - b));
}

/**
 * The value of an entry of a configuration file, which has a type of its own: a number is no text that looks like
 * one, and the other way round.
 */
export function parseTomlValue(type: SettingType, value: unknown): ParsedValue {
  switch (type.kind) {
    case "integer":
    case "number":
    case "count":
      return typeof value === "number" ? parseValue(type, String(value)) : refuse(type, value);
    case "integers": {
      const values = typeof value === "number" ? [value] : value;
      return Array.isArray(values) ? parseValue(type, values.join(",")) : refuse(type, value);
    }
    case "u64":
      // A number of a configuration file has 63 bits; a text reaches further.
      return typeof value === "number" || typeof value === "string"
        ? parseValue(type, String(value))
        : refuse(type, value);
    case "switch":
    case "boolean":
      return typeof value === "boolean"
        ? accept(value)
        : { ok: false, allowed: `one of ${BOOLEANS.join(", ")}` };
    case "list": {
      const texts = typeof value === "string" ? [value] : value;
      const fits = Array.isArray(texts) && texts.every((text) => typeof text === "string" && text !== "");
      return fits ? accept(texts) : refuse(type, value);
    }
    case "choice":
      return type.choices.some((choice) => choice === value)
        ? accept(value as string | number)
        : refuse(type, value);
    case "text":
    case "path":
    case "url":
      return typeof value === "string" ? parseValue(type, value) : refuse(type, value);
    default:
      return type satisfies never;
  }
}

function isSwitchedOn(rule: SwitchRule, text: string): boolean {
  const word = text.trim();
  if ("containing" in rule) return word.includes(rule.containing);
  const listed = "except" in rule ? rule.except : rule;
  const isListed = listed.includes(word) || listed.includes(word.toLowerCase());
  return "except" in rule ? !isListed : isListed;
}

/** What a value may be, in words: for errors and for help. */
export function allowedText(type: SettingType): string {
  switch (type.kind) {
    case "integer":
      return type.max >= 2 ** 31 - 1
        ? `a whole number, at least ${type.min}`
        : `a whole number from ${type.min} to ${type.max}`;
    case "integers":
      if (type.isSet === true) {
        return `whole numbers from ${type.min} to ${type.max} and ranges, such as 5-9,15-19`;
      }
      return `${allowedText({ ...type, kind: "integer" })}; several are separated by commas`;
    case "number":
      return `a number from ${type.min} to ${type.max}`;
    case "count":
      return `a whole number from 0 to ${type.max}`;
    case "u64":
      return `a whole number from 0 to ${U64_MAX}`;
    case "text":
      return type.words ?? "a text that is not empty";
    case "list":
      return `texts that are not empty, separated by ${type.separator === ";" ? "semicolons" : "commas"}`;
    case "path":
      return type.extensions === undefined
        ? "a path that is not empty"
        : `a path that ends in ${type.extensions.join(" or ")}`;
    case "url":
      return "an address that starts with http:// or https://";
    case "choice":
      return `one of ${type.choices.join(", ")}`;
    case "boolean":
      return `one of ${BOOLEANS.join(", ")}`;
    case "switch":
      return switchText(type.on);
    default:
      return type satisfies never;
  }
}

function switchText(rule: SwitchRule): string {
  if ("containing" in rule) return `on for a text that contains ${rule.containing}`;
  if (!("except" in rule)) return rule.length === 0 ? "no value" : `on for ${rule.join(", ")}`;
  return rule.except.length === 0 ? "on when set to anything" : `off for ${rule.except.join(", ")}`;
}

/** A value as it is shown in logs and help. */
export function showValue(declaration: SettingDeclaration, value: SettingValue | undefined): string {
  if (value === undefined) return declaration.unsetText ?? "not set";
  if (declaration.secret === true && value !== declaration.default) return "(set)";
  if (Array.isArray(value)) return value.join(", ");
  return declaration.unit === "ms" || declaration.unit === "s" || declaration.unit === "MB"
    ? `${value} ${declaration.unit}`
    : String(value);
}

function accept(value: SettingValue): ParsedValue {
  return { ok: true, value };
}

function refuse(type: SettingType, value: unknown): ParsedValue {
  const isNear = type.kind === "choice" && typeof value === "string";
  const suggestion = isNear ? didYouMean(value, type.choices.map(String)) : "";
  return { ok: false, allowed: `${allowedText(type)}${suggestion}` };
}
