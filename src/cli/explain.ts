/** `config explain [KEY]`: each setting in force and where it came from; with a key, everything about it. */

import { explainSettings, findSettings, reportSettings, suggestSetting } from "../config/explain.ts";
import { allowedText, showValue } from "../config/parse-value.ts";
import type { Resolution } from "../config/resolve.ts";
import { showSource } from "../config/sources.ts";
import { FIRST_VERSION, SETTING_GROUPS } from "../config/types.ts";
import { MistralError } from "../errors.ts";
import { statusNote } from "./command-line.ts";
import { heading, textTable } from "./text-table.ts";

type Explained = ReturnType<typeof explainSettings>[number];

/** Prints on stdout. Throws MistralError for a key that is none. */
export function explain(resolution: Resolution, word: string | undefined): void {
  for (const warning of resolution.warnings) process.stderr.write(`warning: ${warning}\n`);
  const rows = explainSettings("config explain", resolution);
  if (word !== undefined) {
    const keys = findSettings(word);
    if (keys.length === 0) {
      throw new MistralError("invalid_configuration", `${word} is no setting${suggestSetting(word)}`);
    }
    const chosen = rows.filter(({ key }) => keys.includes(key));
    process.stdout.write(chosen.map((row) => textTable(everythingAbout(row))).join("\n"));
    return;
  }
  if (resolution.settings.json) {
    process.stdout.write(`${JSON.stringify(reportSettings("config explain", resolution), null, 2)}\n`);
    return;
  }
  process.stdout.write(overview(rows, process.stdout.isTTY));
}

function overview(rows: readonly Explained[], isTerminal: boolean): string {
  const parts = SETTING_GROUPS.map((group) => {
    const members = rows.filter(({ declaration }) => declaration.group === group);
    const lines = members.map((row) => [
      row.key,
      row.value,
      `${showSource(row.source)}${row.notInEffect === undefined ? "" : `; not in effect: ${row.notInEffect}`}`,
    ]);
    return members.length === 0 ? "" : `${heading(group, isTerminal)}${textTable(lines, { indent: "  " })}`;
  });
  return parts.filter((part) => part !== "").join("\n");
}

function everythingAbout({ key, declaration, value, source, notInEffect }: Explained): string[][] {
  const { flag, short, aliases, environment, toml, type, commands, since } = declaration;
  const flags = [...(short === undefined ? [] : [`-${short}`]), ...(flag === undefined ? [] : [flag])];
  return [
    ["key", key],
    ["meaning", declaration.description],
    ["value", value],
    ["from", showSource(source)],
    ["default", showValue(declaration, declaration.default)],
    ["allowed", allowedText(type)],
    ["flag", [...flags, ...(aliases ?? [])].join(", ") || "none"],
    ["variable", environment?.join(", ") ?? "none"],
    ["in a file", toml?.join(", ") ?? "none"],
    ["commands", commands.join(", ")],
    ["since", since ?? FIRST_VERSION],
    ["status", statusNote(declaration)],
    ...(notInEffect === undefined ? [] : [["now", `this value is not in effect: ${notInEffect}`]]),
  ];
}
