/**
 * Decides the value of every setting: a flag wins over a variable, a variable over a configuration file, that over
 * the default. Reads nothing itself: flags, variables and the parsed file are handed in.
 */

import { MistralError } from "../errors.ts";
import type { ConfigFile, TomlValues } from "./config-file.ts";
import { refuseConflicts, refuseModelConflicts } from "./conflicts.ts";
import { parseTomlValue, parseValue, type SettingValue, showValue } from "./parse-value.ts";
import { type SettingKey, type Settings, settingEntries } from "./settings.ts";
import { type ModelResolution, type SettingSource, type SettingSources, showSource } from "./sources.ts";
import { didYouMean } from "./suggest.ts";
import type { CommandName, SettingDeclaration } from "./types.ts";

export type Environment = Readonly<Record<string, string | undefined>>;

/** A flag as it was typed; `text` is its value, or how often a flag without value was given. */
export interface GivenFlag {
  readonly name: string;
  readonly text: string | number;
}

export interface Resolution extends ModelResolution {
  readonly command: CommandName;
  /**
   * One for each model of the configuration file, or the one that flags and variables name; at least one. The
   * settings of the resolution itself are those of the default model.
   */
  readonly models: readonly ModelResolution[];
  /** Lines for the start log: unusable values that were replaced, and settings that are not in effect. */
  readonly warnings: readonly string[];
}

/** What values come from, besides the defaults. */
export interface SettingInputs {
  readonly flags?: ReadonlyMap<SettingKey, GivenFlag>;
  readonly environment?: Environment;
  readonly file?: ConfigFile | undefined;
}

/** Variables of mistral.rs that are meant for its own processes. */
const INTERNAL_VARIABLES = ["MISTRALRS_DAEMON_INTERNAL"];

/**
 * Resolves and validates the settings of a command; those of other commands keep their defaults. Throws
 * MistralError("invalid_configuration") that names where a setting was set, the value and what is allowed.
 */
export function resolveSettings(command: CommandName, inputs: SettingInputs): Resolution {
  const { flags = new Map(), environment = {}, file } = inputs;
  const warnings = new Set<string>(unknownVariables(environment));
  const entries: readonly (TomlValues | undefined)[] =
    file === undefined || file.models.length === 0 ? [undefined] : file.models;
  const models = entries.map((model): ModelResolution => {
    const resolver = new Resolver(command, flags, environment, file, model, warnings);
    return resolver.resolve();
  });
  const chosen = refuseModelConflicts(models, file);
  for (const model of models) refuseConflicts(command, model);
  return { command, ...models[chosen]!, models, warnings: [...warnings] };
}

/** Whether a command takes a setting; what explains settings takes those of all commands. */
export function takesSetting(command: CommandName, { commands }: SettingDeclaration): boolean {
  if (command === "config explain" || commands.includes(command)) return true;
  return command === "from-config" && (commands.includes("serve") || commands.includes("run"));
}

interface Decided {
  readonly value: SettingValue;
  readonly source: SetSource;
}

type SetSource = Exclude<SettingSource, { readonly kind: "default" }>;

class Resolver {
  readonly #command: CommandName;
  readonly #flags: ReadonlyMap<SettingKey, GivenFlag>;
  readonly #environment: Environment;
  readonly #file: ConfigFile | undefined;
  readonly #model: TomlValues | undefined;
  readonly #warnings: Set<string>;

  constructor(
    command: CommandName,
    flags: ReadonlyMap<SettingKey, GivenFlag>,
    environment: Environment,
    file: ConfigFile | undefined,
    model: TomlValues | undefined,
    warnings: Set<string>,
  ) {
    this.#command = command;
    this.#flags = flags;
    this.#environment = environment;
    this.#file = file;
    this.#model = model;
    this.#warnings = warnings;
  }

  resolve(): ModelResolution {
    const settings: Record<string, SettingValue | undefined> = {};
    const sources: Record<string, SettingSource> = {};
    for (const [key, declaration] of settingEntries()) {
      settings[key] = declaration.default;
      sources[key] = { kind: "default" };
      if (!takesSetting(this.#command, declaration)) continue;
      const decided = this.#decide(key, declaration);
      if (decided === undefined) continue;
      this.#reportIfNotBuilt(declaration, decided);
      settings[key] = decided.value;
      sources[key] = decided.source;
    }
    return { settings: settings as Settings, sources: sources as SettingSources };
  }

  /** Undefined for the default. */
  #decide(key: SettingKey, declaration: SettingDeclaration): Decided | undefined {
    const flag = this.#flags.get(key);
    if (flag !== undefined) return fromFlag(declaration, flag);
    return this.#fromEnvironment(declaration) ?? this.#fromFile(declaration);
  }

  /** The first variable of the setting that is present; an empty one counts only where its presence is the point. */
  #fromEnvironment(declaration: SettingDeclaration): Decided | undefined {
    const { type } = declaration;
    const emptyCounts = type.kind === "switch" && "except" in type.on && type.on.except.length === 0;
    for (const name of declaration.environment ?? []) {
      const text = this.#environment[name];
      if (text === undefined || (text === "" && !emptyCounts)) continue;
      const source = { kind: "environment", name } as const;
      const parsed = parseValue(type, text);
      if (parsed.ok) return { value: parsed.value, source };
      const error = invalidValue(source, text, declaration, parsed.allowed);
      if (declaration.lenientEnvironment !== true) throw error;
      this.#warnings.add(`${error.message}; using ${showValue(declaration, declaration.default)}`);
      return undefined;
    }
    return undefined;
  }

  #fromFile(declaration: SettingDeclaration): Decided | undefined {
    if (this.#file === undefined) return undefined;
    for (const name of declaration.toml ?? []) {
      const value = this.#model?.get(name) ?? this.#file.values.get(name);
      if (value === undefined) continue;
      const source = { kind: "file", name, path: this.#file.path } as const;
      const parsed = parseTomlValue(declaration.type, value);
      if (!parsed.ok) throw invalidValue(source, value, declaration, parsed.allowed);
      return { value: parsed.value, source };
    }
    return undefined;
  }

  #reportIfNotBuilt(declaration: SettingDeclaration, { value, source }: Decided): void {
    const reason = notInEffect(declaration, value);
    if (reason === undefined) return;
    const shown = declaration.type.kind === "switch" ? "" : ` (${showValue(declaration, value)})`;
    const message = `${showSource(source)}${shown}`;
    // Whoever only asks what is in force is told, not refused.
    const refuses = declaration.notBuilt?.refused === true && source.kind !== "environment";
    if (refuses && this.#command !== "config explain") {
      throw new MistralError("invalid_configuration", `${message} is not available: ${reason}`, {
        parameter: source.name,
      });
    }
    this.#warnings.add(`${message} is not in effect: ${reason}`);
  }
}

/** Why this value has no effect; undefined when it has. */
export function notInEffect(
  { notBuilt, onlyOn, default: byDefault }: SettingDeclaration,
  value: SettingValue | undefined,
  platform: NodeJS.Platform = process.platform,
): string | undefined {
  if (value === undefined || value === byDefault) return undefined;
  if (onlyOn !== undefined && platform !== onlyOn.toLowerCase()) return `only ${onlyOn} can do it`;
  if (notBuilt === undefined) return undefined;
  const isExcepted = notBuilt.except?.some((exception) => exception === value) === true;
  return isExcepted ? undefined : notBuilt.because;
}

function fromFlag(declaration: SettingDeclaration, flag: GivenFlag): Decided {
  const source = { kind: "flag", name: flag.name } as const;
  if (declaration.type.kind === "switch") return { value: true, source };
  const parsed = parseValue(declaration.type, String(flag.text));
  if (!parsed.ok) throw invalidValue(source, String(flag.text), declaration, parsed.allowed);
  return { value: parsed.value, source };
}

function invalidValue(
  source: SetSource,
  value: unknown,
  declaration: SettingDeclaration,
  allowed: string,
): MistralError {
  const shown = declaration.secret === true ? "(hidden)" : JSON.stringify(value);
  return new MistralError(
    "invalid_configuration",
    `${showSource(source)} has the value ${shown}; allowed: ${allowed}`,
    { parameter: source.name },
  );
}

/** A misspelt variable would otherwise be silence. */
function unknownVariables(environment: Environment): string[] {
  const known = settingEntries().flatMap(([, declaration]) => declaration.environment ?? []);
  return Object.keys(environment)
    .filter((name) => name.startsWith("MISTRALRS_") && environment[name] !== undefined)
    .filter((name) => !known.includes(name) && !INTERNAL_VARIABLES.includes(name))
    .sort()
    .map((name) => `variable ${name} is not a setting${didYouMean(name, known)}`);
}
