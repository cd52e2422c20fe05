/**
 * Decides the value of every setting: a flag wins over a variable, a variable over the default. (A
 * configuration file, when there is one, comes between variable and default.) Reads nothing itself: flags and
 * variables are handed in.
 */

import { MistralError } from "../errors.ts";
import { parseValue, type SettingValue, showValue } from "./parse-value.ts";
import { type SettingKey, type Settings, settingEntries } from "./settings.ts";
import type { CommandName, SettingDeclaration } from "./types.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** A flag as it was typed; `text` is its value, or how often a flag without value was given. */
export interface GivenFlag {
  readonly name: string;
  readonly text: string | number;
}

export type SettingSource =
  | { readonly kind: "flag"; readonly name: string }
  | { readonly kind: "environment"; readonly name: string }
  | { readonly kind: "default" };

export interface Resolution {
  readonly settings: Settings;
  readonly sources: Readonly<Record<SettingKey, SettingSource>>;
  /** Lines for the start log: unusable values that were replaced by their default. */
  readonly warnings: readonly string[];
}

/**
 * Resolves and validates the settings of a command; those of other commands keep their defaults. Throws
 * MistralError("invalid_configuration") that names where a setting was set, the value and what is allowed.
 */
export function resolveSettings(
  command: CommandName,
  flags: ReadonlyMap<SettingKey, GivenFlag>,
  environment: Environment,
): Resolution {
  const settings: Record<string, SettingValue | undefined> = {};
  const sources: Record<string, SettingSource> = {};
  const warnings: string[] = [];
  for (const [key, declaration] of settingEntries()) {
    settings[key] = declaration.default;
    sources[key] = { kind: "default" };
    if (!declaration.commands.includes(command)) continue;
    const flag = flags.get(key);
    const decided =
      flag === undefined ? fromEnvironment(declaration, environment, warnings) : fromFlag(declaration, flag);
    if (decided === undefined) continue;
    settings[key] = decided.value;
    sources[key] = decided.source;
  }
  const resolution = { settings: settings as Settings, sources: sources as Resolution["sources"], warnings };
  refuseConflicts(command, resolution);
  return resolution;
}

/** `--port 99999` or `KEEP_ALIVE_INTERVAL=x`: where a value came from, for messages. */
export function showSource(source: SettingSource): string {
  switch (source.kind) {
    case "flag":
      return `flag ${source.name}`;
    case "environment":
      return `variable ${source.name}`;
    case "default":
      return "default";
    default:
      return source satisfies never;
  }
}

interface Decided {
  readonly value: SettingValue;
  readonly source: SettingSource;
}

function fromFlag(declaration: SettingDeclaration, flag: GivenFlag): Decided {
  const source = { kind: "flag", name: flag.name } as const;
  if (declaration.type.kind === "switch") return { value: true, source };
  const parsed = parseValue(declaration.type, String(flag.text));
  if (!parsed.ok) throw invalidValue(source, String(flag.text), declaration, parsed.allowed);
  return { value: parsed.value, source };
}

/** The first variable of the setting that is present and not empty. */
function fromEnvironment(
  declaration: SettingDeclaration,
  environment: Environment,
  warnings: string[],
): Decided | undefined {
  for (const name of declaration.environment ?? []) {
    const text = environment[name];
    if (text === undefined || text === "") continue;
    const source = { kind: "environment", name } as const;
    const parsed = parseValue(declaration.type, text);
    if (parsed.ok) return { value: parsed.value, source };
    const error = invalidValue(source, text, declaration, parsed.allowed);
    if (declaration.lenientEnvironment !== true) throw error;
    warnings.push(`${error.message}; using ${showValue(declaration, declaration.default)}`);
    return undefined;
  }
  return undefined;
}

function invalidValue(
  source: Exclude<SettingSource, { readonly kind: "default" }>,
  text: string,
  declaration: SettingDeclaration,
  allowed: string,
): MistralError {
  const shown = declaration.secret === true ? "(hidden)" : JSON.stringify(text);
  return new MistralError(
    "invalid_configuration",
    `${showSource(source)} has the value ${shown}; allowed: ${allowed}`,
    { parameter: source.name },
  );
}

/** Settings that exclude each other. */
function refuseConflicts(command: CommandName, { settings, sources }: Resolution): void {
  if (settings.cacheContextLength !== undefined && settings.cacheMemoryMb !== undefined) {
    throw new MistralError(
      "invalid_configuration",
      `${showSource(sources.cacheContextLength)} (${settings.cacheContextLength} tokens) and ${showSource(sources.cacheMemoryMb)} (${settings.cacheMemoryMb} MB) both size the KV cache; give one of them`,
      { parameter: "--pa-memory-mb" },
    );
  }
  if ((settings.tlsCertificate === undefined) !== (settings.tlsKey === undefined)) {
    throw new MistralError(
      "invalid_configuration",
      "--tls-cert and --tls-key belong together: HTTPS needs a certificate and its private key",
      { parameter: settings.tlsKey === undefined ? "--tls-key" : "--tls-cert" },
    );
  }
  if (command === "serve" && settings.batchedTokensMax < settings.sequencesMax) {
    throw new MistralError(
      "invalid_configuration",
      `--max-num-batched-tokens is ${settings.batchedTokensMax} (${showSource(sources.batchedTokensMax)}) and --max-seqs is ${settings.sequencesMax} (${showSource(sources.sequencesMax)}); a step needs room for a token of each sequence, so the first must be at least the second`,
      { parameter: "--max-num-batched-tokens" },
    );
  }
}
