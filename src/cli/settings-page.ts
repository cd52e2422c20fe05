/**
 * Writes `docs/configuration.md` from the settings themselves; a test fails when it is not current.
 *
 * `bun src/cli/settings-page.ts --write` writes the page, without the flag it is printed.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { allowedText, showValue } from "../config/parse-value.ts";
import { settingEntries } from "../config/settings.ts";
import { FIRST_VERSION, SETTING_GROUPS, type SettingDeclaration } from "../config/types.ts";
import { statusNote } from "./command-line.ts";
import { commandNames, describeCommand } from "./commands.ts";
import { PROJECT_ROOT } from "./setup.ts";

export const SETTINGS_PAGE = join(PROJECT_ROOT, "docs", "configuration.md");

const INTRODUCTION = `# Configuration

<!-- written by \`bun src/cli/settings-page.ts --write\`; a test fails when it is not current -->

Every setting is in one table (\`src/config/settings/\`), from which this page, \`--help\`, shell completions, parsing and
the start log are made. A **flag** is stronger than a **variable**, a variable stronger than a key of a
**configuration file**, that stronger than the **default**. \`mistral config explain\` prints what is in force and where
each value came from; \`mistral config explain port\` everything about one setting.

Names, defaults and meanings are those of mistral.rs where it has the setting. A setting whose feature does not exist
yet is read and checked all the same. Set by a variable, it is reported as not in effect by the start log and by
\`mistral doctor\`; set by a flag or a key, it ends the command if the answers would not be those that were asked for,
and is reported otherwise. A variable that begins with \`MISTRALRS_\` and is none of these is reported, with the nearest
name. Anything else that is wrong ends the command with status 2 and one line that names the key, where it was set,
the value and what is allowed.

## Configuration files

\`mistral from-config FILE.toml\` does what the file says; \`--config FILE.toml\` reads one for another command. Two models,
of which the second answers requests that name none:

\`\`\`toml
command = "serve"
default_model_id = "Qwen/Qwen3-0.6B"

[server]
port = 1234
host = "127.0.0.1"

[runtime]
max_seqs = 16
prefix_cache_n = 16

[paged_attn]
context_len = 4096

[[models]]
model_id = "HuggingFaceTB/SmolLM2-135M-Instruct"

[[models]]
model_id = "Qwen/Qwen3-0.6B"
chat_template = "templates/qwen3.jinja"
\`\`\`

Each model is an engine process of its own and answers by its \`model_id\`, or by \`alias\` where it has one. Keys of the
table \`[[models]]\` belong to that model; a file may hold all keys of the tables below and no others.
`;

/** The page as it should be. */
export function settingsPage(): string {
  const groups = SETTING_GROUPS.map((group) => {
    const rows = settingEntries()
      .filter(([, declaration]) => declaration.group === group)
      .map(([, declaration]) => row(declaration));
    const head = ["Flag", "Variable", "Key in a file", "Default", "Meaning", "Commands", "Since", "Status"];
    const lines = [head, head.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |`);
    return `## ${group}\n\n${lines.join("\n").replaceAll("|  |", "| |")}\n`;
  });
  return `${INTRODUCTION}\n${commandsPart()}\n${groups.join("\n")}`;
}

function commandsPart(): string {
  const lines = commandNames().map((name) => {
    const { description, operand } = describeCommand(name);
    const behind =
      operand === undefined ? "" : operand.required ? ` <${operand.name}>` : ` [${operand.name}]`;
    return `| \`mistral ${name}${behind}\` | ${description} |`;
  });
  return `## Commands\n\n| Command | What it does |\n| --- | --- |\n${lines.join("\n")}\n`;
}

function row(declaration: SettingDeclaration): string[] {
  const { flag, short, aliases, environment, toml, commands, since } = declaration;
  const flags =
    flag === undefined ? [] : [...(short === undefined ? [] : [`-${short}`]), flag, ...(aliases ?? [])];
  const value = showValue(declaration, declaration.default);
  return [
    code(flags),
    code(environment ?? []),
    code(toml ?? []),
    declaration.default === undefined ? value : `\`${value}\``,
    `${declaration.description}${allowedNote(declaration)}`,
    commands.join(", "),
    since ?? FIRST_VERSION,
    statusNote(declaration),
  ].map((cell) => cell.replaceAll("|", "\\|"));
}

function code(names: readonly string[]): string {
  return names.map((name) => `\`${name}\``).join(" ");
}

/** What a value may be, where the description does not say it already. */
function allowedNote({ type, environment }: SettingDeclaration): string {
  if ((type.kind === "text" && type.words === undefined) || type.kind === "path") return "";
  if (type.kind === "switch" && environment === undefined) return "";
  return ` (${allowedText(type)})`;
}

if (import.meta.main) {
  if (process.argv.includes("--write")) {
    mkdirSync(dirname(SETTINGS_PAGE), { recursive: true });
    writeFileSync(SETTINGS_PAGE, settingsPage());
  } else process.stdout.write(settingsPage());
}
