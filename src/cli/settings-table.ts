/**
 * Writes the README's table of settings from the settings themselves; a test fails when it is not current.
 *
 * `bun src/cli/settings-table.ts --write` writes the README, without the flag the table is printed.
 */

import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { allowedText, showValue } from "../config/parse-value.ts";
import { settingEntries } from "../config/settings.ts";
import type { SettingDeclaration } from "../config/types.ts";
import { PROJECT_ROOT } from "./setup.ts";

const README = join(PROJECT_ROOT, "README.md");
const REGION = /(<!-- settings:.*?-->\n)[\s\S]*?(<!-- \/settings -->)/;

/** The README with a current table. */
export function withSettingsTable(readme: string): string {
  if (!REGION.test(readme)) throw new Error("README.md has lost the marks around its table of settings");
  return readme.replace(REGION, (_, start: string, end: string) => `${start}${settingsTable()}${end}`);
}

function settingsTable(): string {
  const rows = settingEntries().map(([, setting]) => {
    const short = setting.short === undefined ? [] : [`-${setting.short}`];
    const flags = setting.flag === undefined ? [] : [...short, setting.flag, ...(setting.aliases ?? [])];
    const value =
      setting.default === undefined
        ? showValue(setting, undefined)
        : `\`${showValue(setting, setting.default)}\``;
    return [
      flags.map((flag) => `\`${flag}\``).join(" "),
      (setting.environment ?? []).map((name) => `\`${name}\``).join(" "),
      value,
      `${setting.description}${allowedNote(setting)}`,
      setting.commands.join(", "),
    ];
  });
  const heading = ["Flag", "Variable", "Default", "Meaning", "Commands"];
  const lines = [heading, heading.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
  return `${lines.join("\n").replaceAll("|  |", "| |")}\n`;
}

/** What a value may be, where the description does not say it already. */
function allowedNote({ type, flag }: SettingDeclaration): string {
  if (type.kind === "text" || type.kind === "path") return "";
  if (type.kind === "switch" && flag !== undefined) return "";
  return ` (${allowedText(type)})`;
}

if (import.meta.main) {
  const readme = withSettingsTable(readFileSync(README, "utf8"));
  if (process.argv.includes("--write")) writeFileSync(README, readme);
  else process.stdout.write(settingsTable());
}
