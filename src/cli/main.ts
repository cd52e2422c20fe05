/**
 * The commands: parses the command line, decides the settings and hands over to the command that was named, whose
 * code is loaded only then. Set-up must have happened.
 */

import packageJson from "../../package.json" with { type: "json" };
import type { ConfigFile, ConfigFileCommand } from "../config/config-file.ts";
import { modelName } from "../config/conflicts.ts";
import { type GivenFlag, type Resolution, resolveSettings } from "../config/resolve.ts";
import { SETTINGS, type SettingKey } from "../config/settings.ts";
import { EngineChild } from "../engine/engine-child.ts";
import { MistralError } from "../errors.ts";
import { type ParsedCommandLine, parseCommandLine } from "./command-line.ts";
import { offersFlag, type Shell } from "./commands.ts";
import { exitWith } from "./failure.ts";
import { readConfigFile, readRingConfig } from "./read-config.ts";

type CommandLine = Extract<ParsedCommandLine, { readonly kind: "command" }>;

/**
 * Runs a command line (without program and script). A server's promise resolves when it is ready; the process
 * goes on. Throws MistralError when the command fails.
 */
export async function main(commandArguments: readonly string[]): Promise<void> {
  const line = parseCommandLine(commandArguments, packageJson.version);
  if (line.kind === "done") return;
  if (line.command === "from-config") {
    const { command, resolution } = fromConfig(line);
    return start(command, resolution, undefined);
  }
  // The doctor tells what is wrong with a configuration instead of stopping at it.
  if (line.command === "doctor")
    return start("doctor", resolveSettings("doctor", { flags: line.flags }), undefined);
  // Before its flags are judged: what is wrong is not one of them.
  if (line.command === "quantize") throw quantizeIsNotBuilt();
  const path = line.flags.get("configFile")?.text;
  const file = path === undefined ? undefined : readConfigFile(String(path), "flag --config");
  refuseOtherCommand(file, line);
  return start(line.command, resolve(line.command, line, file), line.operand);
}

function resolve(
  command: CommandLine["command"],
  line: CommandLine,
  file: ConfigFile | undefined,
): Resolution {
  const flags = new Map(line.flags);
  // `serve text` is the same as the key models.kind of a configuration file.
  const kind = SETTINGS.modelKind.commands.some((name) => name === command) ? line.operand : undefined;
  if (kind !== undefined && line.command === command) flags.set("modelKind", { name: kind, text: kind });
  const resolution = resolveSettings(command, { flags, environment: process.env, file });
  readRingConfig(resolution.settings.ringConfig);
  return resolution;
}

/** The file says what to do; flags of that command are stronger than it. */
function fromConfig(line: CommandLine): { command: ConfigFileCommand; resolution: Resolution } {
  const { path, flags } = configPath(line);
  const file = readConfigFile(path, "from-config");
  if (file.models.length === 0) {
    throw new MistralError(
      "invalid_configuration",
      `${file.path} names no model; add a table [[models]] with model_id`,
    );
  }
  const command = file.command ?? "serve";
  for (const [key, { name }] of flags) {
    if (offersFlag(command, SETTINGS[key])) continue;
    throw new MistralError(
      "invalid_configuration",
      `flag ${name} is none of ${command}, which is what ${file.path} asks for`,
      {
        parameter: name,
      },
    );
  }
  if (command === "run" && file.models.length > 1) {
    throw new MistralError(
      "invalid_configuration",
      `${file.path} names ${file.models.length} models; run talks to one`,
    );
  }
  return { command, resolution: resolve(command, { ...line, flags, operand: undefined }, file) };
}

/** mistral.rs takes the file with -f, which elsewhere names weights. */
function configPath({ operand, flags }: CommandLine): { path: string; flags: Map<SettingKey, GivenFlag> } {
  const file = flags.get("file");
  if (operand === undefined && file !== undefined && String(file.text).endsWith(".toml")) {
    return { path: String(file.text), flags: new Map([...flags].filter(([key]) => key !== "file")) };
  }
  if (operand !== undefined) return { path: operand, flags };
  throw new MistralError("invalid_configuration", "from-config needs a file: from-config FILE.toml");
}

function refuseOtherCommand(file: ConfigFile | undefined, { command }: CommandLine): void {
  const other = file?.command;
  if (other === undefined || other === command || (command !== "serve" && command !== "run")) return;
  throw new MistralError(
    "invalid_configuration",
    `key command in ${file?.path} has the value "${other}", but the command is ${command}; use from-config to do what the file says`,
    { parameter: "command" },
  );
}

async function start(
  command: Exclude<CommandLine["command"], "from-config" | "quantize">,
  resolution: Resolution,
  operand: string | undefined,
): Promise<void> {
  switch (command) {
    case "serve":
      startEngine(resolution);
      return (await import("./serve/serve.ts")).serve(resolution);
    case "run":
      startEngine(resolution);
      return (await import("./run/run.ts")).run(resolution);
    case "tune":
      return (await import("./tune/tune.ts")).tune(resolution);
    case "doctor":
      return (await import("./doctor/doctor.ts")).doctor(resolution);
    case "bench":
      return (await import("./bench/bench.ts")).bench(resolution);
    case "bench-kernels":
      return (await import("./bench/kernels/bench-kernels.ts")).benchKernels(resolution);
    case "config explain":
      return (await import("./explain.ts")).explain(resolution, operand);
    case "cache list":
      return (await import("./cache.ts")).listCache(resolution);
    case "cache delete":
      return (await import("./cache.ts")).deleteFromCache(resolution);
    case "login":
      return (await import("./login.ts")).login(resolution);
    case "completions":
      return (await import("./completions.ts")).printCompletions(operand as Shell);
    default:
      return command satisfies never;
  }
}

/** Its process takes as long to get up as this one takes to find the model and the code that loads it. */
function startEngine({ settings }: Resolution): void {
  EngineChild.startAhead(modelName(settings) ?? "default");
}

function quantizeIsNotBuilt(): MistralError {
  return new MistralError(
    "invalid_configuration",
    "quantize is not built yet. It will write UQFF files of a model, in the types that --isq names, to the file or folder of --output. Until then llama.cpp's llama-quantize makes GGUF files, which this program reads",
  );
}

if (import.meta.main) {
  try {
    await main(process.argv.slice(2));
  } catch (error) {
    exitWith(error);
  }
}
