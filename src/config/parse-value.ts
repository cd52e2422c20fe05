/** Turns the text of a flag or variable into the value of a setting, or says what would be allowed. */

import { didYouMean } from "./suggest.ts";
import type { SettingDeclaration, SettingType } from "./types.ts";

export type SettingValue = string | number | bigint | boolean | readonly string[];

export type ParsedValue =
  | { readonly ok: true; readonly value: SettingValue }
  | { readonly ok: false; readonly allowed: string };

const U64_MAX = 2n ** 64n - 1n;

/** The value of a text. `count` and `switch` settings read the text of their variable. */
export function parseValue(type: SettingType, text: string): ParsedValue {
  switch (type.kind) {
    case "integer":
    case "count": {
      const value = /^[+-]?\d+$/.test(text.trim()) ? Number(text) : Number.NaN;
      const min = type.kind === "integer" ? type.min : 0;
      return value >= min && value <= type.max ? accept(value) : refuse(type, text);
    }
    case "u64": {
      const value = /^\d+$/.test(text.trim()) ? BigInt(text) : -1n;
      return value >= 0n && value <= U64_MAX ? accept(value) : refuse(type, text);
    }
    case "text":
      return text.trim() === "" ? refuse(type, text) : accept(text);
    case "list": {
      const entries = text.split(",").map((entry) => entry.trim());
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
    case "switch":
      return accept(type.on.includes(text.trim()) || type.on.includes(text.trim().toLowerCase()));
    default:
      return type satisfies never;
  }
}

/** What a value may be, in words: for errors and for help. */
export function allowedText(type: SettingType): string {
  switch (type.kind) {
    case "integer":
      return type.max >= 2 ** 31 - 1
        ? `a whole number, at least ${type.min}`
        : `a whole number from ${type.min} to ${type.max}`;
    case "count":
      return `a whole number from 0 to ${type.max}`;
    case "u64":
      return `a whole number from 0 to ${U64_MAX}`;
    case "text":
      return "a text that is not empty";
    case "list":
      return "texts that are not empty, separated by commas";
    case "path":
      return type.extensions === undefined
        ? "a path that is not empty"
        : `a path that ends in ${type.extensions.join(" or ")}`;
    case "url":
      return "an address that starts with http:// or https://";
    case "choice":
      return `one of ${type.choices.join(", ")}`;
    case "switch":
      return type.on.length === 0 ? "no value" : `on for ${type.on.join(", ")}`;
    default:
      return type satisfies never;
  }
}

/** A value as it is shown in logs and help. */
export function showValue(declaration: SettingDeclaration, value: SettingValue | undefined): string {
  if (value === undefined) return declaration.unsetText ?? "not set";
  if (declaration.secret === true) return "(set)";
  if (Array.isArray(value)) return value.join(", ");
  return declaration.unit === "ms" || declaration.unit === "s" || declaration.unit === "MB"
    ? `${value} ${declaration.unit}`
    : String(value);
}

function accept(value: SettingValue): ParsedValue {
  return { ok: true, value };
}

function refuse(type: SettingType, text: string): ParsedValue {
  const suggestion = type.kind === "choice" ? didYouMean(text, type.choices.map(String)) : "";
  return { ok: false, allowed: `${allowedText(type)}${suggestion}` };
}
