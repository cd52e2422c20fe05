/**
 * Configuration files: TOML whose keys the settings table knows. Gives each value under its key, those of
 * `[[models]]` for each model apart; knows nothing of types and precedence. Reads no file itself.
 */

import { MistralError } from "../errors.ts";
import { settingEntries } from "./settings.ts";
import { didYouMean } from "./suggest.ts";
import type { CommandName, TomlKey } from "./types.ts";

/** Values as the file has them, by key. */
export type TomlValues = ReadonlyMap<TomlKey, unknown>;

export interface ConfigFile {
  readonly path: string;
  /** What `from-config` does with the file; undefined where the file does not say. */
  readonly command: ConfigFileCommand | undefined;
  /** Everything outside `[[models]]`. */
  readonly values: TomlValues;
  /** One entry for each `[[models]]`, keys with `models.` in front. */
  readonly models: readonly TomlValues[];
}

export type ConfigFileCommand = Extract<CommandName, "serve" | "run">;

const COMMANDS: readonly ConfigFileCommand[] = ["serve", "run"];
const COMMAND_KEY = "command";
const MODELS_KEY = "models";

/**
 * Parses the text of a configuration file. Throws MistralError("invalid_configuration") that names the file and
 * the line or key at fault, with the nearest known key.
 */
export function parseConfigFile(text: string, path: string): ConfigFile {
  const { [COMMAND_KEY]: command, [MODELS_KEY]: models = [], ...shared } = parseToml(text, path);
  const isTables = Array.isArray(models) && models.every(isTable);
  if (!isTables)
    throw refusal(path, MODELS_KEY, `is not a list of tables; write [[${MODELS_KEY}]] above each model`);
  const known = knownKeys();
  return {
    path,
    command: command === undefined ? undefined : commandOf(command, path),
    values: flatten(shared, "", path, known),
    models: models.map((model) => flatten(model, `${MODELS_KEY}.`, path, known)),
  };
}

/** Every key of the table of settings. */
export function knownKeys(): ReadonlySet<TomlKey> {
  return new Set(settingEntries().flatMap(([, { toml }]) => toml ?? []));
}

type Table = Readonly<Record<string, unknown>>;

function isTable(value: unknown): value is Table {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function commandOf(command: unknown, path: string): ConfigFileCommand {
  const known = COMMANDS.find((name) => name === command);
  if (known !== undefined) return known;
  const suggestion = typeof command === "string" ? didYouMean(command, COMMANDS) : "";
  throw refusal(
    path,
    COMMAND_KEY,
    `has the value ${JSON.stringify(command)}; allowed: one of ${COMMANDS.join(", ")}${suggestion}`,
  );
}

function flatten(
  table: Table,
  prefix: string,
  path: string,
  known: ReadonlySet<TomlKey>,
): ReadonlyMap<TomlKey, unknown> {
  const values = new Map<TomlKey, unknown>();
  for (const [name, value] of Object.entries(table)) {
    const key = `${prefix}${name}`;
    const isKnownTable = [...known].some((candidate) => candidate.startsWith(`${key}.`));
    if (isTable(value) && isKnownTable) {
      for (const [inner, innerValue] of flatten(value, `${key}.`, path, known)) values.set(inner, innerValue);
    } else if (known.has(key)) {
      values.set(key, value);
    } else if (isKnownTable) {
      throw refusal(path, key, `is ${JSON.stringify(value)}, not a table`);
    } else {
      throw refusal(path, key, `is not a key of a configuration file${didYouMean(key, [...known])}`);
    }
  }
  return values;
}

function refusal(path: string, key: TomlKey, problem: string): MistralError {
  return new MistralError("invalid_configuration", `key ${key} in ${path} ${problem}`, { parameter: key });
}

function parseToml(text: string, path: string): Table {
  try {
    return Bun.TOML.parse(text) as Table;
  } catch (error) {
    const reason = (error as Error).message.replace(/^TOML Parse error: /, "");
    const line = failingLine(text);
    throw new MistralError(
      "invalid_configuration",
      `${path}, at or after line ${line}: not TOML: ${reason}`,
      {
        cause: error,
      },
    );
  }
}

/** Bun does not say where a text stops being TOML: the first line after the longest beginning that is. */
function failingLine(text: string): number {
  const lines = text.split("\n");
  let good = 0;
  for (let count = 1; count < lines.length; count++) {
    try {
      Bun.TOML.parse(lines.slice(0, count).join("\n"));
      good = count;
    } catch {
      // An entry of several lines is not complete yet, or this is the place.
    }
  }
  return good + 1;
}
