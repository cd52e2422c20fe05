/**
 * The vocabulary of the settings table: what kinds of value a setting can have and what is said about each
 * setting. Knows no particular setting.
 */

/** Which texts of a variable switch a switch on; every other text is off. */
export type SwitchRule =
  /** Exactly one of these. */
  | readonly string[]
  | { readonly containing: string }
  /** Anything but these, the empty text included; with no exceptions, being set at all is enough. */
  | { readonly except: readonly string[] };

export type SettingType =
  | { readonly kind: "integer"; readonly min: number; readonly max: number }
  /**
   * One or several whole numbers: the flag is repeated, or they are separated by commas. Of a set, `5-9` stands for
   * 5 to 9, and each number counts once, in order.
   */
  | { readonly kind: "integers"; readonly min: number; readonly max: number; readonly isSet?: true }
  /** A number with or without a fraction. */
  | { readonly kind: "number"; readonly min: number; readonly max: number }
  /** An unsigned integer of 64 bits. */
  | { readonly kind: "u64" }
  /** `pattern` with what it allows in words. */
  | { readonly kind: "text"; readonly pattern?: RegExp; readonly words?: string }
  | { readonly kind: "path"; readonly extensions?: readonly string[] }
  | { readonly kind: "url" }
  /** Several texts: the flag is repeated, or they are separated by commas, as they are in a variable. */
  | { readonly kind: "list"; readonly separator?: "," | ";" }
  | { readonly kind: "choice"; readonly choices: readonly (string | number)[] }
  /** A flag that may stand alone, which is true, or have `=true` or `=false`. */
  | { readonly kind: "boolean" }
  /** A flag without a value; `on` says which texts of its variable switch it on, every other text is off. */
  | { readonly kind: "switch"; readonly on: SwitchRule }
  /** A flag without a value that counts how often it is given. */
  | { readonly kind: "count"; readonly max: number };

export type ValueOf<T extends SettingType> = T extends { kind: "integer" | "count" | "number" }
  ? number
  : T extends { kind: "u64" }
    ? bigint
    : T extends { kind: "choice"; choices: readonly (infer Choice)[] }
      ? Choice
      : T extends { kind: "switch" | "boolean" }
        ? boolean
        : T extends { kind: "list" }
          ? readonly string[]
          : T extends { kind: "integers" }
            ? readonly number[]
            : string;

/** In the order in which help and the documentation show them. */
export const SETTING_GROUPS = [
  "Server",
  "Access",
  "Model",
  "Quantisation",
  "Adapters",
  "Device",
  "Engine",
  "KV cache",
  "Chat template",
  "Generation",
  "Agents",
  "Hugging Face",
  "Logging",
  "Benchmark",
  "Report",
  "Several nodes",
  "Build",
] as const;

export type SettingGroup = (typeof SETTING_GROUPS)[number];

/** Table and key: `server.port`, `models.format.quantized_file`; a key without a table stands at the top. */
export type TomlKey = string;

export const COMMAND_NAMES = [
  "serve",
  "run",
  "from-config",
  "bench",
  "bench-kernels",
  "tune",
  "quantize",
  "doctor",
  "config explain",
  "cache list",
  "cache delete",
  "login",
  "completions",
  "build",
] as const;

export type CommandName = (typeof COMMAND_NAMES)[number];

/** A setting whose feature does not exist yet: it is read and checked, and said not to be in effect. */
export interface NotBuilt {
  /** Why it has no effect, such as "there is no CUDA backend". */
  readonly because: string;
  /** Values that do have their effect; every other one has none. The default always counts as one. */
  readonly except?: readonly (string | number | boolean)[];
  /** The answers would not be those that were asked for: a flag or key is an error, a variable a warning. */
  readonly refused?: boolean;
}

export interface SettingDeclaration {
  /** Long flag with its dashes; absent for what only a variable sets. */
  readonly flag?: string;
  /** One letter, without dash. */
  readonly short?: string;
  /** Further long flags with the same meaning. */
  readonly aliases?: readonly string[];
  /** Variables, the strongest first. */
  readonly environment?: readonly string[];
  /** Keys of a configuration file, the strongest first; those below `models.` belong to one of its models. */
  readonly toml?: readonly TomlKey[];
  readonly type: SettingType;
  /** Absent: the setting is undefined unless set. */
  readonly default?: string | number | bigint | boolean | readonly number[];
  /** What happens, in words, when the setting is undefined. */
  readonly unsetText?: string;
  readonly unit?: "ms" | "s" | "MB" | "tokens" | "sequences" | "threads";
  readonly description: string;
  readonly group: SettingGroup;
  readonly commands: readonly CommandName[];
  /** The version of this project that had it first; 0.1.0 when absent. */
  readonly since?: string;
  /** Absent: the setting is in effect. */
  readonly notBuilt?: NotBuilt;
  /** The only system where it can have its effect, in that system's own spelling. */
  readonly onlyOn?: "Linux";
  /** An unusable text of the variable is a warning and the default, as in mistral.rs; otherwise an error. */
  readonly lenientEnvironment?: boolean;
  /** Never shown. */
  readonly secret?: boolean;
}

/** The version in which a setting was first there. */
export const FIRST_VERSION = "0.1.0";
