/**
 * What happens between finding a model and loading it: what the loader is told is chosen, the model's headers are read,
 * its format checked, its memory planned and told, and refused when there is no room for it.
 */

import type { ChosenDevice } from "../backend/device-choice.ts";
import type { Settings } from "../config/settings.ts";
import { MistralError } from "../errors.ts";
import { type HostMemory, hostMemory } from "../models/host-memory.ts";
import { openCheckpoint } from "../weights/checkpoint.ts";
import type { ResolvedModel } from "../weights/resolve.ts";
import type { Checkpoint } from "../weights/types.ts";
import { computeDevice, deviceMemory } from "./compute-device.ts";
import { writeTensorList } from "./debug-tensors.ts";
import type { Log } from "./log.ts";
import { memoryWarning, type Placement, placeModel } from "./memory-plan.ts";
import { type LoaderOptions, runnerOptions } from "./runner-options.ts";

/** Elements of a list that the debug log shows. */
const LISTED_MAX = 32;

/** What the settings alone decide about a load. */
export interface ChosenLoad {
  readonly device: ChosenDevice;
  readonly options: LoaderOptions;
}

/** Chooses the device and what the loader is told. Throws MistralError for a device that is not there. */
export function chooseLoad({ checkpointPath }: ResolvedModel, settings: Settings, log: Log): ChosenLoad {
  const device = computeDevice(settings, log);
  if (device.cuda !== undefined) tellOfThreads(settings, log);
  return { device, options: runnerOptions(settings, checkpointPath, device.choice) };
}

export interface PreparedModel {
  readonly resolved: ResolvedModel;
  readonly checkpoint: Checkpoint;
  readonly options: LoaderOptions;
  readonly placement: Placement;
  /** Writes the whole plan to the log; takes tens of milliseconds, in which an engine's process can already start. */
  readonly tellPlan: () => Promise<void>;
}

/**
 * Prepares a model. `reservedBytes` is memory that other models of this process count on and have not touched yet.
 * Throws MistralError for malformed files, another format than asked for, and too little memory.
 */
export function prepareModel(
  resolved: ResolvedModel,
  settings: Settings,
  log: Log,
  reservedBytes = 0,
  { device, options: wanted }: ChosenLoad = chooseLoad(resolved, settings, log),
): PreparedModel {
  const checkpoint = openCheckpoint(resolved.checkpointPath);
  requireFormat(checkpoint, settings);
  requireGqa(checkpoint, settings, log);
  if (settings.debug) tellDebug(checkpoint, log);
  const ofDevice = deviceMemory(device, settings);
  const memory = ofDevice ?? lessReserved(hostMemory(), reservedBytes);
  const placement = placeModel(checkpoint, wanted, memory);
  const warning = memoryWarning(placement, checkpoint);
  if (warning !== undefined) log.write("warning", warning);
  const { kvBytes, contextLength } = placement;
  // The loader does not know of the others: it is told what came out here. A device tells it itself.
  const options =
    reservedBytes === 0 || ofDevice !== undefined
      ? wanted
      : { ...wanted, kvMemoryFraction: undefined, kvMemoryBytes: kvBytes, contextLengthMax: contextLength };
  const name = settings.servedName ?? resolved.id;
  const tellPlan = async (): Promise<void> => {
    if (!log.enabled("info")) return;
    const { describeMemory, planMemory } = await import("./memory-report.ts");
    log.table("info", describeMemory(planMemory(checkpoint, wanted, memory), name));
  };
  return { resolved, checkpoint, options, placement, tellPlan };
}

function lessReserved({ totalBytes, availableBytes }: HostMemory, reservedBytes: number): HostMemory {
  return { totalBytes, availableBytes: Math.max(0, availableBytes - reservedBytes) };
}

type Format = NonNullable<Settings["format"]>;

function formatOf(checkpoint: Checkpoint): Format {
  return checkpoint.format === "safetensors" ? "plain" : (checkpoint.container ?? "gguf");
}

function requireFormat(checkpoint: Checkpoint, settings: Settings): void {
  if (settings.format === undefined) return;
  const found = formatOf(checkpoint);
  if (found === settings.format) return;
  throw new MistralError(
    "invalid_configuration",
    `--format is ${settings.format}, but the weights that were found are ${found === "plain" ? "safetensors (plain)" : found}`,
    { parameter: "--format" },
  );
}

/** A GGML file's tensors say what --gqa says, so it is held against them; other formats have no use for it. */
function requireGqa(checkpoint: Checkpoint, { gqa }: Settings, log: Log): void {
  if (gqa === undefined) return;
  if (checkpoint.format !== "gguf" || checkpoint.container !== "ggml") {
    // 1 is what configuration files of mistral.rs say when they say nothing.
    if (gqa === 1) return;
    const found = `the weights are ${formatOf(checkpoint)}`;
    log.write("warning", `--gqa (${gqa}) is not in effect: it is for GGML files, and ${found}`);
    return;
  }
  const count = (key: string): number => Number(checkpoint.metadata.get(`llama.attention.${key}`));
  const found = count("head_count") / count("head_count_kv");
  if (found === gqa) return;
  throw new MistralError(
    "invalid_configuration",
    `--gqa is ${gqa}, but the file has ${found} query heads for each key/value head; leave the flag out`,
    { parameter: "--gqa" },
  );
}

/** Threads are pinned and wait where the processor computes. */
function tellOfThreads({ processorMask, processorAffinity, spinLimit }: Settings, log: Log): void {
  const without = [
    ...(processorMask === undefined ? [] : ["CANDLE_CPU_MASK"]),
    ...(processorAffinity ? ["CANDLE_CPU_AFFINITY"] : []),
    ...(spinLimit === undefined ? [] : ["CANDLE_BARRIER_POOL_SPIN_LIMIT"]),
  ];
  if (without.length === 0) return;
  log.write("warning", `no effect on a CUDA device: ${without.join(", ")}`);
}

function tellDebug(checkpoint: Checkpoint, log: Log): void {
  const path = writeTensorList(checkpoint, process.cwd());
  if (path !== undefined) log.write("info", `wrote the names, shapes and types of all tensors to ${path}`);
  if (checkpoint.format !== "gguf") return;
  for (const [key, value] of [...checkpoint.metadata].filter(([key]) => !key.includes("tokenizer"))) {
    const shown = Array.isArray(value) ? `[${value.slice(0, LISTED_MAX).join(", ")}]` : String(value);
    log.write("debug", `${key} = ${shown.slice(0, 200)}`);
  }
}
