/**
 * The completion scripts of shells with data structures: a table of commands and flags, and one function that reads
 * it. Both shells choose among the candidates by what was typed themselves or are given a filter here.
 */

import { PROGRAM } from "./command-line.ts";
import { COMMAND_FAMILIES } from "./commands.ts";
import { type CompletedCommand, firstWords, memberWords, spellings } from "./completed-command.ts";

/** One entry of a list that is offered. */
type Candidate = readonly [word: string, description: string];

interface Table {
  /** What stands first, and behind the first word of a family. */
  readonly words: readonly (readonly [string, readonly Candidate[]])[];
  /** By command: its flags, and what may stand without a flag ("file" for any path). */
  readonly commands: readonly {
    readonly name: string;
    readonly flags: readonly Candidate[];
    readonly operand: readonly string[];
    /** By flag, for those that take a value; files and free texts are left to the shell. */
    readonly values: readonly (readonly [string, readonly string[]])[];
  }[];
}

function tableOf(commands: readonly CompletedCommand[]): Table {
  const families = Object.keys(COMMAND_FAMILIES);
  return {
    words: [
      ["", firstWords(commands)],
      ...families.map((name) => [name, memberWords(commands, name)] as const),
    ],
    commands: commands.map(({ words, operand, flags }) => ({
      name: words.join(" "),
      flags: flags.flatMap((flag) => spellings(flag).map((name): Candidate => [name, flag.description])),
      operand: operand === "none" ? [] : operand === "file" ? ["file"] : operand,
      values: flags.flatMap((flag) => {
        const { value } = flag;
        if (value === "none") return [];
        const list = value === "file" ? ["file"] : value === "other" ? [] : value;
        return spellings(flag).map((name) => [name, list] as const);
      }),
    })),
  };
}

/** Elvish filters by prefix itself; a quote inside quotes is doubled. */
export function elvishScript(commands: readonly CompletedCommand[]): string {
  const { words, commands: described } = tableOf(commands);
  const quote = (text: string): string => `'${text.replaceAll("'", "''")}'`;
  const list = (texts: readonly string[]): string => `[${texts.map(quote).join(" ")}]`;
  const map = (entries: readonly (readonly [string, string])[]): string =>
    entries.length === 0
      ? "[&]"
      : `[\n${entries.map(([key, value]) => `    &${quote(key)}=${value}`).join("\n")}\n  ]`;
  const candidates = (entries: readonly Candidate[]): string => `[${entries.map(list).join(" ")}]`;
  return `# Completions of ${PROGRAM} for elvish. In ~/.config/elvish/rc.elv: eval (${PROGRAM} completions elvish | slurp)
use str
set edit:completion:arg-completer[${PROGRAM}] = {|@words|
  var next = ${map(words.map(([word, entries]) => [word, candidates(entries)]))}
  var flags = ${map(described.map(({ name, flags }) => [name, candidates(flags)]))}
  var operands = ${map(described.map(({ name, operand }) => [name, list(operand)]))}
  var values = ${map(described.flatMap(({ name, values }) => values.map(([flag, texts]) => [`${name} ${flag}`, list(texts)] as const)))}
  fn offer {|entries|
    for entry $entries { edit:complex-candidate $entry[0] &code-suffix=' ' &display=$entry[0]'  '$entry[1] }
  }
  fn offer-values {|texts current|
    for text $texts {
      if (eq $text file) { edit:complete-filename $current } else { put $text }
    }
  }
  var typed = $words[1..]
  var current = $typed[-1]
  var count = (count $typed)
  if (== $count 1) {
    offer $next['']
    return
  }
  var command = $typed[0]
  if (has-key $next $command) {
    if (== $count 2) {
      offer $next[$command]
      return
    }
    set command = $command' '$typed[1]
  }
  if (not (has-key $flags $command)) { return }
  var before = $command' '$typed[-2]
  if (has-key $values $before) {
    offer-values $values[$before] $current
  } elif (str:has-prefix $current -) {
    offer $flags[$command]
  } else {
    offer-values $operands[$command] $current
  }
}
`;
}

/** PowerShell 7 and Windows PowerShell 5; a quote inside quotes is doubled. */
export function powershellScript(commands: readonly CompletedCommand[]): string {
  const { words, commands: described } = tableOf(commands);
  const quote = (text: string): string => `'${text.replaceAll("'", "''")}'`;
  const list = (texts: readonly string[]): string => `@(${texts.map(quote).join(", ")})`;
  const table = (entries: readonly (readonly [string, string])[]): string =>
    `@{\n${entries.map(([key, value]) => `    ${quote(key)} = ${value}`).join("\n")}\n  }`;
  const candidates = (entries: readonly Candidate[]): string =>
    `@(${entries.map(([word, text]) => `,${list([word, text])}`).join("; ")})`;
  return `# Completions of ${PROGRAM} for PowerShell. In $PROFILE: ${PROGRAM} completions powershell | Out-String | Invoke-Expression
Register-ArgumentCompleter -Native -CommandName ${quote(PROGRAM)} -ScriptBlock {
  param($current, $line, $cursor)
  $next = ${table(words.map(([word, entries]) => [word, candidates(entries)]))}
  $flags = ${table(described.map(({ name, flags }) => [name, candidates(flags)]))}
  $operands = ${table(described.map(({ name, operand }) => [name, list(operand)]))}
  $values = ${table(described.flatMap(({ name, values }) => values.map(([flag, texts]) => [`${name} ${flag}`, list(texts)] as const)))}
  $typed = @($line.CommandElements | Select-Object -Skip 1 |
    Where-Object { $_.Extent.EndOffset -lt $cursor } | ForEach-Object { $_.ToString() })
  function Offer($entries) {
    $entries | Where-Object { $_[0] -clike "$current*" } | ForEach-Object {
      [System.Management.Automation.CompletionResult]::new($_[0], $_[0], 'ParameterValue', $_[1])
    }
  }
  function OfferValues($texts) {
    if ($texts -contains 'file') { [System.Management.Automation.CompletionCompleters]::CompleteFilename($current) }
    else { Offer @($texts | ForEach-Object { ,@($_, $_) }) }
  }
  if ($typed.Count -eq 0) { return Offer $next[''] }
  $command = $typed[0]
  if ($next.ContainsKey($command)) {
    if ($typed.Count -eq 1) { return Offer $next[$command] }
    $command = "$command $($typed[1])"
  }
  if (-not $flags.ContainsKey($command)) { return }
  $before = "$command $($typed[-1])"
  if ($values.ContainsKey($before)) { OfferValues $values[$before] }
  elseif ($current.StartsWith('-')) { Offer $flags[$command] }
  else { OfferValues $operands[$command] }
}
`;
}
