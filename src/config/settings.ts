/**
 * The one table of settings: flag, variable, key in a configuration file, type, default, meaning. Parsing, `--help`,
 * shell completions, the start log and `docs/configuration.md` are made from it. Names and defaults are those of
 * mistral.rs where it has the setting. The rows are in settings/, by topic.
 */

import { AGENT_SETTINGS } from "./settings/agents.ts";
import { BUILD_SETTINGS } from "./settings/build.ts";
import { COMMAND_SETTINGS } from "./settings/commands.ts";
import { DEVICE_SETTINGS } from "./settings/devices.ts";
import { ENGINE_SETTINGS } from "./settings/engine.ts";
import { KERNEL_BENCH_SETTINGS } from "./settings/kernel-bench.ts";
import { MODEL_SETTINGS } from "./settings/model.ts";
import { NODE_SETTINGS } from "./settings/nodes.ts";
import { SERVER_SETTINGS } from "./settings/server.ts";
import { WEIGHT_SETTINGS } from "./settings/weights.ts";
import type { SettingDeclaration, ValueOf } from "./types.ts";

export const SETTINGS = {
  ...SERVER_SETTINGS,
  ...MODEL_SETTINGS,
  ...ENGINE_SETTINGS,
  ...COMMAND_SETTINGS,
  ...KERNEL_BENCH_SETTINGS,
  ...WEIGHT_SETTINGS,
  ...AGENT_SETTINGS,
  ...DEVICE_SETTINGS,
  ...NODE_SETTINGS,
  ...BUILD_SETTINGS,
} as const satisfies Record<string, SettingDeclaration>;

export type SettingKey = keyof typeof SETTINGS;

/** A value for every setting; undefined only where the table has no default. */
export type Settings = {
  readonly [Key in SettingKey]: (typeof SETTINGS)[Key] extends { default: unknown }
    ? ValueOf<(typeof SETTINGS)[Key]["type"]>
    : ValueOf<(typeof SETTINGS)[Key]["type"]> | undefined;
};

/** Every setting with its declaration, in the order of the table. */
export function settingEntries(): readonly (readonly [SettingKey, SettingDeclaration])[] {
  return Object.entries(SETTINGS) as [SettingKey, SettingDeclaration][];
}
