/**
 * `completions SHELL`: a script that completes commands, flags and the values of flags, made from the table of
 * settings. The script asks nothing back, so completing costs no start of this program.
 */

import { settingEntries } from "../config/settings.ts";
import type { SettingDeclaration } from "../config/types.ts";
import { PROGRAM } from "./command-line.ts";
import { COMMAND_FAMILIES, commandNames, describeCommand, offersFlag, type Shell } from "./commands.ts";
import {
  type CompletedCommand,
  type CompletedFlag,
  firstWords,
  memberWords,
  spellings,
} from "./completed-command.ts";
import { elvishScript, powershellScript } from "./completion-tables.ts";

const HELP: CompletedFlag = { long: ["--help"], short: "-h", description: "Print help", value: "none" };

export function printCompletions(shell: Shell): void {
  process.stdout.write(completionScript(shell));
}

/** The script for a shell: source it, or put it where the shell looks for completions. */
export function completionScript(shell: Shell): string {
  const commands = commandNames().map((name): CompletedCommand => {
    const { description, operand } = describeCommand(name);
    const flags = settingEntries()
      .filter(([, declaration]) => declaration.flag !== undefined && offersFlag(name, declaration))
      .map(([, declaration]) => completedFlag(declaration));
    return {
      words: name.split(" "),
      description,
      operand: operand?.choices ?? (operand?.name === "file" ? "file" : "none"),
      flags: [...flags, HELP],
    };
  });
  switch (shell) {
    case "bash":
      return bashScript(commands);
    case "zsh":
      return zshScript(commands);
    case "fish":
      return fishScript(commands);
    case "elvish":
      return elvishScript(commands);
    case "powershell":
      return powershellScript(commands);
    default:
      return shell satisfies never;
  }
}

function completedFlag({ flag, short, aliases, type, description }: SettingDeclaration): CompletedFlag {
  const values: Partial<Record<typeof type.kind, CompletedFlag["value"]>> = {
    switch: "none",
    count: "none",
    path: "file",
    boolean: ["true", "false"],
    choice: type.kind === "choice" ? type.choices.map(String) : "other",
  };
  return {
    long: [flag ?? "", ...(aliases ?? [])],
    short: short === undefined ? undefined : `-${short}`,
    description,
    value: values[type.kind] ?? "other",
  };
}

function bashScript(commands: readonly CompletedCommand[]): string {
  const words = (pairs: readonly [string, string][]): string => pairs.map(([word]) => word).join(" ");
  const families = Object.keys(COMMAND_FAMILIES);
  const cases = commands.map(({ words: [first, second], operand, flags }) => {
    const valued = flags.flatMap((flag) => {
      const { value } = flag;
      if (value === "none") return [];
      const reply = value === "file" ? "-f" : value === "other" ? undefined : `-W "${value.join(" ")}"`;
      const action = reply === undefined ? ":" : `COMPREPLY=($(compgen ${reply} -- "$current"))`;
      return [`        ${spellings(flag).join("|")}) ${action}; return ;;`];
    });
    const operands = operand === "file" ? "-f" : operand === "none" ? "" : `-W "${operand.join(" ")}"`;
    return `    "${second === undefined ? first : `${first} ${second}`}")
      case "$previous" in
${valued.join("\n")}
      esac
      case "$current" in
        -*) COMPREPLY=($(compgen -W "${flags.flatMap(spellings).join(" ")}" -- "$current")) ;;
        *) ${operands === "" ? ":" : `COMPREPLY=($(compgen ${operands} -- "$current"))`} ;;
      esac ;;`;
  });
  return `# Completions of ${PROGRAM} for bash. In ~/.bashrc: source <(${PROGRAM} completions bash)
_${PROGRAM}() {
  local current="\${COMP_WORDS[COMP_CWORD]}" previous="\${COMP_WORDS[COMP_CWORD-1]}"
  local command="\${COMP_WORDS[1]}"
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "${words(firstWords(commands))} --help --version" -- "$current"))
    return
  fi
  case "$command" in
${families
  .map(
    (family) => `    ${family})
      if [ "$COMP_CWORD" -eq 2 ]; then
        COMPREPLY=($(compgen -W "${words(memberWords(commands, family))}" -- "$current"))
        return
      fi
      command="$command \${COMP_WORDS[2]}" ;;`,
  )
  .join("\n")}
  esac
  case "$command" in
${cases.join("\n")}
  esac
}
complete -F _${PROGRAM} ${PROGRAM}
`;
}

function zshScript(commands: readonly CompletedCommand[]): string {
  const quote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;
  const entry = ([word, description]: readonly [string, string]): string =>
    quote(`${word}:${description.replaceAll(":", "\\:")}`);
  const listing = (pairs: readonly [string, string][]): string => pairs.map(entry).join(" ");
  const argument = (flag: CompletedFlag): string[] => {
    const { description, value } = flag;
    const text = description.replaceAll("[", "\\[").replaceAll("]", "\\]").replaceAll(":", "\\:");
    const values = value === "file" ? ":path:_files" : value === "other" ? ":value: " : "";
    const choice = Array.isArray(value) ? `:value:(${value.join(" ")})` : values;
    return spellings(flag).map((name) => quote(`*${name}[${text}]${value === "none" ? "" : choice}`));
  };
  const cases = commands.map(({ words, operand, flags }) => {
    const behind =
      operand === "file" ? ":file:_files" : operand === "none" ? "" : `:value:(${operand.join(" ")})`;
    const lines = [...flags.flatMap(argument), ...(behind === "" ? [] : [quote(`1${behind}`)])];
    return `    ${quote(words.join(" "))})\n      _arguments -s \\\n        ${lines.join(" \\\n        ")} ;;`;
  });
  const families = Object.keys(COMMAND_FAMILIES).map(
    (family) => `    ${family})
      if (( CURRENT == 3 )); then
        local -a members=(${listing(memberWords(commands, family))})
        _describe command members
        return
      fi
      command="$command $words[3]"
      shift words; (( CURRENT-- )) ;;`,
  );
  return `#compdef ${PROGRAM}
# Completions of ${PROGRAM} for zsh. In ~/.zshrc, after compinit: source <(${PROGRAM} completions zsh)
_${PROGRAM}() {
  local command="$words[2]"
  if (( CURRENT == 2 )); then
    local -a commands=(${listing(firstWords(commands))})
    _describe command commands
    return
  fi
  case "$command" in
${families.join("\n")}
  esac
  shift words; (( CURRENT-- ))
  case "$command" in
${cases.join("\n")}
  esac
}
if [ "$funcstack[1]" = "_${PROGRAM}" ]; then _${PROGRAM} "$@"; else compdef _${PROGRAM} ${PROGRAM}; fi
`;
}

function fishScript(commands: readonly CompletedCommand[]): string {
  const quote = (text: string): string => `'${text.replaceAll("\\", "\\\\").replaceAll("'", "\\'")}'`;
  const lines = [
    `# Completions of ${PROGRAM} for fish. In ~/.config/fish/config.fish: ${PROGRAM} completions fish | source`,
    `complete -c ${PROGRAM} -e`,
    `complete -c ${PROGRAM} -f`,
  ];
  for (const [word, description] of firstWords(commands)) {
    lines.push(`complete -c ${PROGRAM} -n __fish_use_subcommand -a ${word} -d ${quote(description)}`);
  }
  for (const family of Object.keys(COMMAND_FAMILIES)) {
    const members = memberWords(commands, family);
    const names = members.map(([word]) => word).join(" ");
    for (const [word, description] of members) {
      const condition = `__fish_seen_subcommand_from ${family}; and not __fish_seen_subcommand_from ${names}`;
      lines.push(`complete -c ${PROGRAM} -n ${quote(condition)} -a ${word} -d ${quote(description)}`);
    }
  }
  for (const { words, operand, flags } of commands) {
    const condition = quote(words.map((word) => `__fish_seen_subcommand_from ${word}`).join("; and "));
    const start = `complete -c ${PROGRAM} -n ${condition}`;
    if (operand === "file") lines.push(`${start} -F`);
    else if (operand !== "none") lines.push(`${start} -a ${quote(operand.join(" "))}`);
    for (const { long, short, description, value } of flags) {
      const names = [
        ...(short === undefined ? [] : [`-s ${short.slice(1)}`]),
        ...long.map((name) => `-l ${name.slice(2)}`),
      ];
      const words = value === "file" ? " -r -F" : value === "other" ? " -x" : "";
      const values = Array.isArray(value) ? ` -x -a ${quote(value.join(" "))}` : words;
      lines.push(`${start} ${names.join(" ")}${value === "none" ? "" : values} -d ${quote(description)}`);
    }
  }
  return `${lines.join("\n")}\n`;
}
