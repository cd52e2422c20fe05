/**
 * The vocabulary of the settings table: what kinds of value a setting can have and what is said about each
 * setting. Knows no particular setting.
 */

export type SettingType =
  | { readonly kind: "integer"; readonly min: number; readonly max: number }
  /** An unsigned integer of 64 bits. */
  | { readonly kind: "u64" }
  | { readonly kind: "text" }
  | { readonly kind: "path"; readonly extensions?: readonly string[] }
  | { readonly kind: "url" }
  /** Several texts: the flag is repeated, or they are separated by commas, as they are in a variable. */
  | { readonly kind: "list" }
  | { readonly kind: "choice"; readonly choices: readonly (string | number)[] }
  /** A flag without a value; `on` says which texts of its variable switch it on, every other text is off. */
  | { readonly kind: "switch"; readonly on: readonly string[] }
  /** A flag without a value that counts how often it is given. */
  | { readonly kind: "count"; readonly max: number };

export type ValueOf<T extends SettingType> = T extends { kind: "integer" | "count" }
  ? number
  : T extends { kind: "u64" }
    ? bigint
    : T extends { kind: "choice"; choices: readonly (infer Choice)[] }
      ? Choice
      : T extends { kind: "switch" }
        ? boolean
        : T extends { kind: "list" }
          ? readonly string[]
          : string;

export type SettingGroup =
  | "Server"
  | "Access"
  | "Model"
  | "Engine"
  | "KV cache"
  | "Chat template"
  | "Hugging Face"
  | "Logging"
  | "Benchmark";

/** Table and key: `server.port`, `models.format.quantized_file`; a key without a table stands at the top. */
export type TomlKey = string;

export type CommandName = "serve" | "bench";

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
  readonly default?: string | number | bigint | boolean;
  /** What happens, in words, when the setting is undefined. */
  readonly unsetText?: string;
  readonly unit?: "ms" | "s" | "MB" | "tokens" | "sequences" | "threads";
  readonly description: string;
  readonly group: SettingGroup;
  readonly commands: readonly CommandName[];
  /** An unusable text of the variable is a warning and the default, as in mistral.rs; otherwise an error. */
  readonly lenientEnvironment?: boolean;
  /** Never shown. */
  readonly secret?: boolean;
}
