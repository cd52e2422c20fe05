/**
 * The command line, built from the settings table: flags, their spellings and `--help`. Collects what was
 * typed without judging values; src/config does that.
 */

import { Argument, Command, CommanderError, Option } from "commander";
import { allowedText, showValue } from "../config/parse-value.ts";
import type { GivenFlag } from "../config/resolve.ts";
import { type SettingKey, settingEntries } from "../config/settings.ts";
import { didYouMean } from "../config/suggest.ts";
import type { CommandName, SettingDeclaration, SettingType } from "../config/types.ts";
import { MistralError } from "../errors.ts";
import { type CliCommand, COMMAND_FAMILIES, commandNames, describeCommand, offersFlag } from "./commands.ts";

export type ParsedCommandLine =
  | {
      readonly kind: "command";
      readonly command: CliCommand;
      readonly flags: Map<SettingKey, GivenFlag>;
      /** What stood behind the command without a flag, where the command takes that. */
      readonly operand: string | undefined;
    }
  /** Help or version was asked for and is already printed. */
  | { readonly kind: "done" };

/** What the program is called, in help and completions. */
export const PROGRAM = "mistral";

/** Parses arguments (without program and script). Throws MistralError("invalid_configuration"). */
export function parseCommandLine(commandArguments: readonly string[], version: string): ParsedCommandLine {
  let parsed: ParsedCommandLine = { kind: "done" };
  const program = new Command(PROGRAM)
    .description("Serve, run and measure language models")
    .version(version, "-V, --version", "Print the version");
  prepare(program);
  const families = new Map(
    Object.entries(COMMAND_FAMILIES).map(([name, description]) => {
      const family = program.command(name).description(description);
      prepare(family);
      return [name, family] as const;
    }),
  );
  for (const name of commandNames()) {
    const [first = name, last = name] = name.split(" ");
    if (isOther(first, commandArguments[0])) continue;
    const { description, operand } = describeCommand(name);
    const flags = new Map<SettingKey, GivenFlag>();
    const command = (families.get(first) ?? program).command(last).description(description);
    prepare(command);
    if (operand !== undefined) {
      const brackets = operand.required ? `<${operand.name}>` : `[${operand.name}]`;
      const argument = new Argument(brackets, operand.description);
      command.addArgument(operand.choices === undefined ? argument : argument.choices([...operand.choices]));
    }
    command.allowExcessArguments(false).action(() => {
      parsed = { kind: "command", command: name, flags, operand: command.args[0] };
    });
    for (const [key, declaration] of settingEntries()) {
      if (offersFlag(name, declaration)) addOptions(command, key, declaration, flags);
    }
    command.addHelpText("after", () => variablesHelp(name));
  }
  try {
    if (commandArguments.length === 0) program.outputHelp();
    else program.parse(commandArguments, { from: "user" });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode !== 0)
      throw new MistralError("invalid_configuration", complaint(error, commandArguments));
  }
  return parsed;
}

/** Whether another command was typed than those that begin with `first`; making them all takes milliseconds. */
function isOther(first: string, typed: string | undefined): boolean {
  return typed !== first && commandNames().some((name) => name.split(" ")[0] === typed);
}

/** Settings of commander itself, the same for the program and all its commands. */
function prepare(command: Command): void {
  command
    .helpOption("-h, --help", "Print this help")
    .helpCommand(false)
    .exitOverride()
    .configureOutput({ writeErr: () => {} });
}

/** The options of one setting: its flag, and its other spellings, which help does not list. */
function addOptions(
  command: Command,
  key: SettingKey,
  declaration: SettingDeclaration,
  flags: Map<SettingKey, GivenFlag>,
): void {
  if (declaration.flag === undefined) return;
  const placeholder = valuePlaceholder(declaration);
  for (const flag of [declaration.flag, ...(declaration.aliases ?? [])]) {
    const primary = flag === declaration.flag;
    const short = primary && declaration.short !== undefined ? `-${declaration.short}, ` : "";
    const option = new Option(`${short}${flag}${placeholder}`, describe(declaration));
    if (!primary || isWithoutEffect(declaration)) option.hideHelp();
    command.addOption(option.helpGroup(`${declaration.group}:`));
    command.on(`option:${option.name()}`, (text?: string | null) => {
      const before = flags.get(key)?.text;
      flags.set(key, { name: flag, text: nextText(declaration.type, before, text ?? undefined) });
    });
  }
}

/** Help is for what can be used; the documentation has the rest. */
function isWithoutEffect({ notBuilt }: SettingDeclaration): boolean {
  return notBuilt !== undefined && notBuilt.except === undefined;
}

/** The value of a flag that was given again. Commander hands over no text for a flag without value. */
function nextText(
  type: SettingType,
  before: string | number | undefined,
  text: string | undefined,
): string | number {
  switch (type.kind) {
    case "switch":
    case "count":
      return Number(before ?? 0) + 1;
    case "boolean":
      return text ?? "true";
    case "list":
    case "integers":
      return before === undefined
        ? (text ?? "")
        : `${before}${type.kind === "list" ? (type.separator ?? ",") : ","}${text ?? ""}`;
    default:
      return text ?? "";
  }
}

function valuePlaceholder({ type, unit }: SettingDeclaration): string {
  const words: Record<SettingType["kind"], string> = {
    integer: unit === undefined ? " <n>" : ` <${unit}>`,
    integers: unit === undefined ? " <n>" : ` <${unit}>`,
    number: " <number>",
    u64: " <n>",
    text: " <text>",
    path: " <path>",
    url: " <url>",
    list: " <text>",
    choice: type.kind === "choice" ? ` <${type.choices.join("|")}>` : "",
    boolean: " [true|false]",
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
  if (declaration.notBuilt !== undefined) notes.push(effectNote(declaration.notBuilt));
  return `${declaration.description}${notes.length === 0 ? "" : ` (${notes.join("; ")})`}`;
}

/** What is said of a setting that has no effect, or only for some of its values. */
function effectNote(notBuilt: NonNullable<SettingDeclaration["notBuilt"]>): string {
  const partly = notBuilt.except === undefined ? "" : ` except ${notBuilt.except.join(", ")}`;
  return `not in effect${partly}: ${notBuilt.because}`;
}

/** Whether a setting is in effect, in words. */
export function statusNote({ notBuilt, onlyOn }: SettingDeclaration): string {
  if (notBuilt !== undefined) return effectNote(notBuilt);
  return onlyOn === undefined ? "in effect" : `in effect on ${onlyOn}`;
}

/** The settings that only a variable sets, which commander knows nothing of. */
function variablesHelp(name: CommandName): string {
  const lines = settingEntries()
    .filter(([, { flag, environment }]) => flag === undefined && environment !== undefined)
    .filter(([, declaration]) => offersFlag(name, declaration) && !isWithoutEffect(declaration))
    .map(([, declaration]) => {
      const variables = (declaration.environment ?? []).join(", ");
      const value = `${allowedText(declaration.type)}; default: ${showValue(declaration, declaration.default)}`;
      const status = statusNote(declaration);
      const effect = status === "in effect" ? "" : `; ${status}`;
      return `  ${variables.padEnd(24)} ${declaration.description} (${value}${effect})`;
    });
  const hidden = settingEntries().some(
    ([, declaration]) => offersFlag(name, declaration) && isWithoutEffect(declaration),
  );
  const variables = lines.length === 0 ? "" : `\nVariables:\n${lines.join("\n")}\n`;
  return `${variables}${hidden ? "\nSettings of features that are not built yet are in docs/configuration.md.\n" : ""}`.trimEnd();
}

const WRONG_CHOICE =
  /^error: command-argument value '(.*)' is invalid for argument '(.*)'\. Allowed choices are (.*)\.$/s;

/**
 * Commander's words in ours: it puts its suggestion on a second line and "error: " in front, has no suggestion for an
 * argument, and says nothing where it prints help.
 */
function complaint(error: CommanderError, commandArguments: readonly string[]): string {
  const [, value, argument, choices] = WRONG_CHOICE.exec(error.message) ?? [];
  if (value !== undefined && choices !== undefined) {
    const suggestion = didYouMean(value, choices.split(", "));
    return `argument ${argument} has the value ${JSON.stringify(value)}; allowed: one of ${choices}${suggestion}`;
  }
  const [family = ""] = commandArguments;
  const command = commandNames().find((name) => name === family);
  if (error.code === "commander.missingArgument" && command !== undefined) {
    const { operand } = describeCommand(command);
    return `${command} needs its argument ${operand?.name}: one of ${operand?.choices?.join(", ")}`;
  }
  if (error.code !== "commander.help") return error.message.replace(/^error: /, "").replaceAll("\n", " ");
  const members = commandNames().filter((name) => name.startsWith(`${family} `));
  return `${family} needs a command behind it: ${members.join(" or ")}`;
}
