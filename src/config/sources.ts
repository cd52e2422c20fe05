/** Where the value of a setting came from. */

import type { SettingKey, Settings } from "./settings.ts";

export type SettingSource =
  | { readonly kind: "flag"; readonly name: string }
  | { readonly kind: "environment"; readonly name: string }
  | { readonly kind: "file"; readonly name: string; readonly path: string }
  | { readonly kind: "default" };

export type SettingSources = Readonly<Record<SettingKey, SettingSource>>;

/** The settings of one model, those that all models share included. */
export interface ModelResolution {
  readonly settings: Settings;
  readonly sources: SettingSources;
}

/** `flag --port` or `server.port in mistral.toml`: where a value came from, for messages. */
export function showSource(source: SettingSource): string {
  switch (source.kind) {
    case "flag":
      return `flag ${source.name}`;
    case "environment":
      return `variable ${source.name}`;
    case "file":
      return `key ${source.name} in ${source.path}`;
    case "default":
      return "default";
    default:
      return source satisfies never;
  }
}
