/** The commands: what each does and what stands behind its name. Their flags are in the settings table. */

import type { CommandName, SettingDeclaration } from "../config/types.ts";

export interface Operand {
  readonly name: string;
  readonly description: string;
  readonly required: boolean;
  /** The only values, where there are few. */
  readonly choices?: readonly string[];
}

export interface CommandDescription {
  readonly description: string;
  readonly operand?: Operand;
}

const KIND: Operand = {
  name: "kind",
  description: "Kind of model",
  required: false,
  choices: ["auto", "text", "multimodal", "diffusion", "speech", "embedding"],
};

export const SHELLS = ["bash", "zsh", "fish", "elvish", "powershell"] as const;
export type Shell = (typeof SHELLS)[number];

/** In the order of the help. `build` is run by the package script before anything of this exists. */
export const COMMANDS = {
  serve: { description: "Load a model and start the HTTP server", operand: KIND },
  run: { description: "Talk to a model in the terminal, or answer one question with -i", operand: KIND },
  "from-config": {
    description: "Do what a configuration file says: serve one or several models, or run one",
    operand: { name: "file", description: "Configuration file in TOML", required: false },
  },
  bench: { description: "Measure prefill and decode speed", operand: KIND },
  "bench-kernels": { description: "Measure every kernel against what this machine can do at best" },
  tune: { description: "Say which quantisations of a model this machine has room for", operand: KIND },
  quantize: { description: "Write a quantised form of a model (not built yet)", operand: KIND },
  doctor: { description: "Check this machine and the configuration" },
  "config explain": {
    description: "Print settings in force and where each came from",
    operand: {
      name: "key",
      description: "A key, flag, variable or key of a configuration file",
      required: false,
    },
  },
  "cache list": { description: "List the models in the cache of the hub" },
  "cache delete": { description: "Delete a model from the cache of the hub" },
  login: { description: "Save an access token of the hub" },
  completions: {
    description: "Print a script that completes commands and flags in a shell",
    operand: { name: "shell", description: "Shell to complete in", required: true, choices: SHELLS },
  },
} as const satisfies Partial<Record<CommandName, CommandDescription>>;

/** A command of the command line. */
export type CliCommand = keyof typeof COMMANDS;

/** Commands of which several begin with the same word. */
export const COMMAND_FAMILIES: Readonly<Record<string, string>> = {
  config: "Settings in force",
  cache: "Models in the cache of the hub",
};

export function commandNames(): readonly CliCommand[] {
  return Object.keys(COMMANDS) as CliCommand[];
}

export function describeCommand(name: CliCommand): CommandDescription {
  return COMMANDS[name];
}

/** Whether the command line of a command takes the flag of a setting. */
export function offersFlag(command: CommandName, { commands }: SettingDeclaration): boolean {
  if (commands.includes(command)) return true;
  if (command === "config explain") return commands.includes("serve");
  return command === "from-config" && (commands.includes("serve") || commands.includes("run"));
}
