/** What is completed, whatever the shell: commands, their flags, and the values of those. */

import { COMMAND_FAMILIES } from "./commands.ts";

export interface CompletedFlag {
  /** Long spellings with dashes. */
  readonly long: readonly string[];
  /** With its dash. */
  readonly short: string | undefined;
  readonly description: string;
  /** Words to offer, files, something else, or nothing because it takes no value. */
  readonly value: readonly string[] | "file" | "other" | "none";
}

export interface CompletedCommand {
  /** The words that name it. */
  readonly words: readonly string[];
  readonly description: string;
  readonly operand: readonly string[] | "file" | "none";
  readonly flags: readonly CompletedFlag[];
}

export function spellings({ long, short }: CompletedFlag): string[] {
  return [...long, ...(short === undefined ? [] : [short])];
}

/** What may stand first: commands of one word, and the first words of families. */
export function firstWords(commands: readonly CompletedCommand[]): [string, string][] {
  const single = commands.filter(({ words }) => words.length === 1);
  return [
    ...single.map(({ words, description }): [string, string] => [words[0]!, description]),
    ...Object.entries(COMMAND_FAMILIES),
  ];
}

/** What may stand behind the first word of a family. */
export function memberWords(commands: readonly CompletedCommand[], family: string): [string, string][] {
  return commands
    .filter(({ words }) => words.length > 1 && words[0] === family)
    .map(({ words, description }) => [words[1]!, description]);
}
