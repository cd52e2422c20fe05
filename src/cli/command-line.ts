/**
 * The command line, built from the settings table: flags, their spellings and `--help`. Collects what was
 * typed without judging values; src/config does that.
 */

import { Command, CommanderError, Option } from "commander";
import { allowedText, showValue } from "../config/parse-value.ts";
import type { GivenFlag } from "../config/resolve.ts";
import { type SettingKey, settingEntries } from "../config/settings.ts";
import type { CommandName, SettingDeclaration, SettingType } from "../config/types.ts";
import { MistralError } from "../errors.ts";

export type ParsedCommandLine =
  | { readonly kind: "command"; readonly command: CommandName; readonly flags: Map<SettingKey, GivenFlag> }
  /** Help or version was asked for and is already printed. */
  | { readonly kind: "done" };

const COMMANDS: Readonly<Record<CommandName, string>> = {
  serve: "Load a model and start the HTTP server",
  bench: "Measure prefill and decode speed",
};

/** Parses arguments (without program and script). Throws MistralError("invalid_configuration"). */
export function parseCommandLine(commandArguments: readonly string[], version: string): ParsedCommandLine {
  let parsed: ParsedCommandLine = { kind: "done" };
  const program = new Command("mistral")
    .description("Serve and measure language models")
    .version(version, "-V, --version", "Print the version")
    .helpOption("-h, --help", "Print this help")
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
  for (const [name, description] of Object.entries(COMMANDS) as [CommandName, string][]) {
    const flags = new Map<SettingKey, GivenFlag>();
    const command = program
      .command(name)
      .description(description)
      .usage("[options]")
      .helpOption("-h, --help", "Print this help")
      .allowExcessArguments(false)
      .action(() => {
        parsed = { kind: "command", command: name, flags };
      });
    for (const [key, declaration] of settingEntries()) addOptions(command, name, key, declaration, flags);
    command.addHelpText("after", variablesHelp(name));
  }
  try {
    if (commandArguments.length === 0) program.outputHelp();
    else program.parse(commandArguments, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0) throw new MistralError("invalid_configuration", oneLine(error.message));
  }
  return parsed;
}

/** The options of one setting: its flag, and its other spellings, which help does not list. */
function addOptions(
  command: Command,
  name: CommandName,
  key: SettingKey,
  declaration: SettingDeclaration,
  flags: Map<SettingKey, GivenFlag>,
): void {
  if (declaration.flag === undefined || !declaration.commands.includes(name)) return;
  const placeholder = valuePlaceholder(declaration);
  for (const flag of [declaration.flag, ...(declaration.aliases ?? [])]) {
    const primary = flag === declaration.flag;
    const short = primary && declaration.short !== undefined ? `-${declaration.short}, ` : "";
    const option = new Option(`${short}${flag}${placeholder}`, describe(declaration));
    if (!primary) option.hideHelp();
    command.addOption(option.helpGroup(`${declaration.group}:`));
    command.on(`option:${option.name()}`, (text?: string | null) => {
      const before = flags.get(key)?.text;
      const more = declaration.type.kind === "list" && before !== undefined ? `${before},` : "";
      const value = placeholder === "" ? Number(before ?? 0) + 1 : `${more}${text ?? ""}`;
      flags.set(key, { name: flag, text: value });
    });
  }
}

function valuePlaceholder({ type, unit }: SettingDeclaration): string {
  const words: Record<SettingType["kind"], string> = {
    integer: unit === undefined ? " <n>" : ` <${unit}>`,
    u64: " <n>",
    text: " <text>",
    path: " <path>",
    url: " <url>",
    list: " <text>",
    choice: type.kind === "choice" ? ` <${type.choices.join("|")}>` : "",
    switch: "",
    count: "",
  };
  return words[type.kind];
}

function describe(declaration: SettingDeclaration): string {
  const notes: string[] = [];
  if (declaration.type.kind !== "switch" && declaration.type.kind !== "count") {
    notes.push(`default: ${showValue(declaration, declaration.default)}`);
  }
  if (declaration.environment !== undefined) notes.push(`variable: ${declaration.environment.join(", ")}`);
  return `${declaration.description}${notes.length === 0 ? "" : ` (${notes.join("; ")})`}`;
}

/** The settings that only a variable sets, which commander knows nothing of. */
function variablesHelp(name: CommandName): string {
  const lines = settingEntries()
    .filter(([, { flag, commands }]) => flag === undefined && commands.includes(name))
    .map(([, declaration]) => {
      const variables = (declaration.environment ?? []).join(", ");
      const value = `${allowedText(declaration.type)}; default: ${showValue(declaration, declaration.default)}`;
      return `  ${variables.padEnd(24)} ${declaration.description} (${value})`;
    });
  return `\nVariables:\n${lines.join("\n")}`;
}

/** Commander puts its suggestion on a second line and "error: " in front. */
function oneLine(message: string): string {
  return message.replace(/^error: /, "").replaceAll("\n", " ");
}
