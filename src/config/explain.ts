/** What each setting is and why: the rows behind `config explain`, the start log and reports about the system. */

import { showValue } from "./parse-value.ts";
import { notInEffect, takesSetting } from "./resolve.ts";
import { type SettingKey, settingEntries } from "./settings.ts";
import { type ModelResolution, type SettingSource, showSource } from "./sources.ts";
import { didYouMean } from "./suggest.ts";
import type { CommandName, SettingDeclaration } from "./types.ts";

export interface ExplainedSetting {
  readonly key: SettingKey;
  readonly declaration: SettingDeclaration;
  /** As text, secrets hidden; what happens where there is no value. */
  readonly value: string;
  readonly source: SettingSource;
  /** Whether something else than the default decided. */
  readonly isSet: boolean;
  /** Why the value has no effect; undefined when it has. */
  readonly notInEffect: string | undefined;
}

/** Every setting that a command takes. */
export function explainSettings(command: CommandName, model: ModelResolution): readonly ExplainedSetting[] {
  return settingEntries()
    .filter(([, declaration]) => takesSetting(command, declaration))
    .map(([key, declaration]) => {
      const value = model.settings[key];
      const source = model.sources[key];
      return {
        key,
        declaration,
        value: showValue(declaration, value),
        source,
        isSet: source.kind !== "default",
        notInEffect: notInEffect(declaration, value),
      };
    });
}

/** A setting as plain data, for programs: `GET /v1/system/info`, `config explain --json`. */
export interface SettingReport {
  readonly key: SettingKey;
  readonly value: string;
  readonly source: string;
  readonly status: "in effect" | "not in effect";
}

export function reportSettings(command: CommandName, model: ModelResolution): readonly SettingReport[] {
  return explainSettings(command, model).map(({ key, value, source, notInEffect: reason }) => ({
    key,
    value,
    source: showSource(source),
    status: reason === undefined ? "in effect" : "not in effect",
  }));
}

/** The settings that a person means: by key, flag with or without dashes, variable or key of a configuration file. */
export function findSettings(word: string): readonly SettingKey[] {
  const wanted = word.toLowerCase();
  return settingEntries()
    .filter(([key, declaration]) => namesOf(key, declaration).some((name) => name.toLowerCase() === wanted))
    .map(([key]) => key);
}

/** ` (did you mean ...?)` for a word that means no setting. */
export function suggestSetting(word: string): string {
  return didYouMean(
    word,
    settingEntries().flatMap(([key, declaration]) => namesOf(key, declaration)),
  );
}

function namesOf(key: SettingKey, { flag, short, aliases, environment, toml }: SettingDeclaration): string[] {
  const flags = [...(flag === undefined ? [] : [flag]), ...(aliases ?? [])];
  return [
    key,
    ...flags,
    ...flags.map((name) => name.replace(/^--/, "")),
    ...(short === undefined ? [] : [`-${short}`]),
    ...(environment ?? []),
    ...(toml ?? []),
  ];
}
