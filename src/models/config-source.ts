/**
 * Reads values of a model's configuration by key, whatever the file format: checks type and range and names the
 * file and the key of what is missing, absurd or contradictory.
 */

import { MistralError } from "../errors.ts";

interface Range {
  readonly minimum: number;
  readonly maximum: number;
}

/** The most that any real model has, with room; more is a broken file, and would overflow sizes later. */
export const CONFIG_LIMITS = {
  layers: { minimum: 1, maximum: 1024 },
  width: { minimum: 1, maximum: 1 << 20 },
  heads: { minimum: 1, maximum: 1 << 14 },
  headDim: { minimum: 2, maximum: 1 << 12 },
  vocabulary: { minimum: 1, maximum: 1 << 24 },
  context: { minimum: 1, maximum: 1 << 27 },
  positive: { minimum: 1e-30, maximum: 1e30 },
} as const satisfies Record<string, Range>;

/** A value for a message, cut short. */
function shown(value: unknown): string {
  const text = typeof value === "bigint" ? String(value) : (JSON.stringify(value) ?? String(value));
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

export class ConfigSource {
  readonly #where: string;
  readonly #prefix: string;
  readonly #get: (key: string) => unknown;

  /** `get` answers undefined for a key that is not there; `prefix` stands before every key in messages. */
  constructor(where: string, prefix: string, get: (key: string) => unknown) {
    this.#where = where;
    this.#prefix = prefix;
    this.#get = get;
  }

  /** The value as stored; null counts as absent, and a bigint that a number can hold is a number. */
  raw(key: string): unknown {
    const value = this.#get(key);
    if (value === null) return undefined;
    return typeof value === "bigint" && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value;
  }

  has(key: string): boolean {
    return this.raw(key) !== undefined;
  }

  fail(key: string, problem: string): never {
    const name = this.#prefix + key;
    throw new MistralError("invalid_model_file", `${this.#where}: ${name} ${problem}`, { parameter: name });
  }

  refuse(key: string, problem: string): never {
    const name = this.#prefix + key;
    throw new MistralError("unsupported_model", `${this.#where}: ${name} ${problem}`, { parameter: name });
  }

  /** A number within the range; `fallback` when the key is absent, an error when there is none. */
  number(key: string, range: Range, fallback?: number): number {
    const value = this.raw(key) ?? fallback;
    if (value === undefined) return this.fail(key, "is missing");
    if (typeof value !== "number" || !Number.isFinite(value)) {
      return this.fail(key, `is ${shown(value)}, not a number`);
    }
    if (value < range.minimum || value > range.maximum) {
      return this.fail(key, `is ${value}, not between ${range.minimum} and ${range.maximum}`);
    }
    return value;
  }

  integer(key: string, range: Range, fallback?: number): number {
    const value = this.number(key, range, fallback);
    return Number.isInteger(value) ? value : this.fail(key, `is ${value}, not an integer`);
  }

  boolean(key: string, fallback: boolean): boolean {
    const value = this.raw(key) ?? fallback;
    return typeof value === "boolean" ? value : this.fail(key, `is ${shown(value)}, not true or false`);
  }

  /** The string, or undefined when the key is absent. */
  string(key: string): string | undefined {
    const value = this.raw(key);
    if (value === undefined || typeof value === "string") return value;
    return this.fail(key, `is ${shown(value)}, not a string`);
  }

  /** The list, or undefined when the key is absent. */
  list(key: string): readonly unknown[] | undefined {
    const value = this.raw(key);
    if (value === undefined || Array.isArray(value)) return value;
    return this.fail(key, `is ${shown(value)}, not a list`);
  }

  /** A list of positive finite numbers of this length. */
  numbers(key: string, length: number): readonly number[] {
    const list = this.list(key) ?? this.fail(key, "is missing");
    if (list.length !== length) this.fail(key, `has ${list.length} entries instead of ${length}`);
    return list.map((value) =>
      typeof value === "number" && Number.isFinite(value) && value > 0
        ? value
        : this.fail(key, `holds ${shown(value)}, not a positive number`),
    );
  }

  /** Token ids: one number or a list of them; empty when absent. */
  tokenIds(key: string, vocabularySize: number): readonly number[] {
    const value = this.raw(key) ?? [];
    return (Array.isArray(value) ? value : [value]).map((id: unknown) =>
      typeof id === "number" && Number.isInteger(id) && id >= 0 && id < vocabularySize
        ? id
        : this.fail(key, `is ${shown(id)}, not a token of a vocabulary of ${vocabularySize}`),
    );
  }

  /** The object under the key, as a source of its own; undefined when absent. */
  object(key: string): ConfigSource | undefined {
    const value = this.raw(key);
    if (value === undefined) return undefined;
    if (typeof value !== "object" || Array.isArray(value)) {
      return this.fail(key, `is ${shown(value)}, not an object`);
    }
    const record = value as Record<string, unknown>;
    return new ConfigSource(this.#where, `${this.#prefix}${key}.`, (inner) =>
      Object.hasOwn(record, inner) ? record[inner] : undefined,
    );
  }
}
