/**
 * `bench --against llama.cpp` or `onnxruntime`: both sides on the same file with the same threads, by turns: prompts of
 * each length, tokens generated behind each depth by each number of sequences, and whole processes. Progress goes to
 * stderr.
 */

import type { Resolution } from "../../../config/resolve.ts";
import type { Settings } from "../../../config/settings.ts";
import { MistralError } from "../../../errors.ts";
import { loadModel } from "../../../models/load-model.ts";
import type { LoadedModel } from "../../../models/loaded-model.ts";
import { fetchModel } from "../../fetch-model.ts";
import type { Log } from "../../log.ts";
import { prepareModel } from "../../prepare-model.ts";
import { cacheTypeOf, type LoaderOptions } from "../../runner-options.ts";
import { blocksOf } from "../bench-step.ts";
import { MachineLimits } from "../machine-limits.ts";
import { requireRoom } from "../room.ts";
import { type AgainstWork, Arena } from "./arena.ts";
import { type Cell, type Comparison, comparisonRow, comparisonTable, pairOf } from "./comparison.ts";
import { installLlama } from "./llama.ts";
import { onnxPeer } from "./onnx/onnx.ts";
import { OwnSide } from "./own-side.ts";
import type { Peer, PeerName, PeerOptions, Way } from "./peer.ts";
import { type Bound, StepWork } from "./step-bounds.ts";
import { type OwnCommand, ownFirstToken, ownProcess, peerFirstToken, peerProcess } from "./whole-process.ts";

/** Whole processes are short and vary more. */
const PROCESS_REPETITIONS_MIN = 3;

/** Compares and prints. Throws MistralError when the model or the other engine cannot do what is asked for. */
export async function benchAgainst({ settings }: Resolution, against: PeerName, log: Log): Promise<void> {
  const { promptLength: prompts, depth, batch, json } = settings;
  const cells = distinct(depth).flatMap((tokens) =>
    distinct(batch).map((sequences) => ({ depth: tokens, sequences })),
  );
  const comparison = await compareEngines(settings, against, { prompts, cells, wholeProcesses: true }, log);
  process.stdout.write(json ? `${JSON.stringify(comparison)}\n` : comparisonTable(comparison));
}

/** Runs the comparison; of the settings, those that say what is compared count for nothing. */
export async function compareEngines(
  settings: Settings,
  against: PeerName,
  work: AgainstWork,
  log: Log,
): Promise<Comparison> {
  const resolved = await fetchModel(settings, log);
  if (!resolved.checkpointPath.endsWith(".gguf")) {
    throw new MistralError(
      "invalid_configuration",
      `--against ${against}: it reads GGUF files, not ${resolved.checkpointPath}`,
      { parameter: "--against" },
    );
  }
  const kvCacheType = cacheTypeOf(settings);
  if (kvCacheType === "f8e4m3") {
    throw new MistralError(
      "invalid_configuration",
      `--against ${against}: it has no KV cache of f8e4m3; compare with --pa-cache-type f16, bf16 or f32`,
      { parameter: "--pa-cache-type" },
    );
  }
  // Before our model is loaded: there may be nothing to compare with.
  const installed = against === "llama.cpp" ? await installLlama() : undefined;
  const sequences = Math.max(...work.cells.map((cell) => cell.sequences));
  const prepared = prepareModel(
    resolved,
    {
      ...settings,
      // Where the other side computes too.
      cpu: true,
      sequencesMax: sequences,
      batchedTokensMax: Math.max(settings.batchedTokensMax, sequences),
    },
    log,
  );
  const { checkpoint, options } = prepared;
  await prepared.tellPlan();
  const other = installed ?? (await onnxPeer(checkpoint, { threads: options.threads }));
  const promptTokens = Math.max(1, ...work.prompts, ...work.cells.map(({ depth }) => depth));
  const totalTokens = promptTokens + settings.generatedLength;
  const peerOptions: PeerOptions = {
    path: options.path,
    threads: options.threads,
    sequences,
    contextLength: totalTokens + 1,
    kvCacheType,
  };
  const model = await loadModel(options);
  const peer = other.start(peerOptions);
  try {
    requireRoom(model.limits, {
      sequences,
      tokens: totalTokens,
      blocks: blocksOf(sequences, totalTokens, model.limits.blockSize),
      what: `--depth or --prompt-len ${promptTokens} and --gen-len ${settings.generatedLength}`,
    });
    const { release } = await peer.ready();
    const room = { sequences, promptTokens, totalTokens, seed: settings.seed ?? 0n };
    const own = new OwnSide(model, room, () => performance.now());
    const limits = new MachineLimits({
      threads: model.info.threads,
      instructionSet: model.info.instructionSet,
    });
    const bounds = new StepWork(checkpoint, options.kvCacheType);
    const arena = new Arena({ own, other, peer, work, settings, log });
    const boundOf = (cell: Cell): Bound =>
      cell.phase === "prefill"
        ? bounds.prefillBound(limits, cell.tokens)
        : bounds.decodeBound(limits, cell.depth + cell.tokens / 2, cell.sequences);
    // Limits are measured where they are first asked for: before the turns, and once more behind them.
    for (const cell of cellsOf(work, settings.generatedLength)) boundOf(cell);
    limits.readBytesPerSecond(model.info.weightBytes);
    const prefill = await arena.prefill();
    const decode = await arena.decode();
    limits.measureAgain();
    const rows = [...prefill, ...decode].map(({ cell, result }) =>
      comparisonRow(cell, result, boundOf(cell)),
    );
    await peer.close();
    const facts = factsOf(resolved.id, model, settings.repetitions);
    model.close();
    const processes = work.wholeProcesses
      ? await compareProcesses(other, peerOptions, ownCommand(options, settings), {
          promptTokens: Math.max(...work.prompts),
          way: prefill.at(-1)!.result.way,
          repetitions: Math.max(settings.repetitions, PROCESS_REPETITIONS_MIN),
          log,
        })
      : {};
    const contests = [...prefill, ...decode].map(({ result }) => result);
    const tile = limits.int8TileOpsPerSecond;
    return {
      ...facts,
      peer: { name: other.name, release, package: other.package, manner: other.manner },
      limits: {
        read_bytes_per_second: Math.round(limits.readBytesPerSecond(facts.weight_bytes)),
        f32_ops_per_second: Math.round(limits.opsPerSecond("f32")),
        int8_dot_ops_per_second: Math.round(limits.int8DotOpsPerSecond),
        ...(tile === undefined ? {} : { int8_tile_ops_per_second: Math.round(tile) }),
      },
      rows,
      ...processes,
      disturbed_rounds: contests.reduce((sum, { disturbed }) => sum + disturbed, 0),
      rounds: contests.reduce((sum, { rounds }) => sum + rounds, 0),
    };
  } finally {
    await peer.close();
    model.close();
  }
}

/** What is going to be measured; fewer tokens may be generated than asked for. */
function cellsOf({ prompts, cells }: AgainstWork, generatedLength: number): readonly Cell[] {
  return [
    ...prompts.map((tokens): Cell => ({ phase: "prefill", tokens, depth: 0, sequences: 1 })),
    ...cells.map((cell): Cell => ({ phase: "decode", tokens: generatedLength, ...cell })),
  ];
}

type ProcessFigures = Required<Pick<Comparison, "first_token_seconds" | "load_seconds" | "peak_rss_bytes">>;

interface ProcessWork {
  readonly promptTokens: number;
  readonly way: Way;
  readonly repetitions: number;
  readonly log: Log;
}

/** Processes of both sides by turns; the first of each fills the system's cache of the file and does not count. */
async function compareProcesses(
  other: Peer,
  options: PeerOptions,
  command: OwnCommand,
  { promptTokens, way, repetitions, log }: ProcessWork,
): Promise<ProcessFigures> {
  const first: { own: number[]; peer: number[] } = { own: [], peer: [] };
  const load: { own: number[]; peer: number[] } = { own: [], peer: [] };
  const peak: { own: number[]; peer: number[] } = { own: [], peer: [] };
  log.write("info", `whole processes, ${repetitions} of each side`);
  for (let repetition = -1; repetition < repetitions; repetition++) {
    const ownSeconds = await ownFirstToken(command);
    const peerSeconds = await peerFirstToken(other, options, way);
    const own = await ownProcess(command, promptTokens);
    const peer = await peerProcess(other, options, { promptTokens, way });
    if (repetition < 0) continue;
    first.own.push(ownSeconds);
    first.peer.push(peerSeconds);
    load.own.push(own.loadSeconds);
    load.peer.push(peer.loadSeconds);
    peak.own.push(own.peakBytes);
    peak.peer.push(peer.peakBytes);
  }
  return {
    first_token_seconds: pairOf(first.own, first.peer),
    load_seconds: pairOf(load.own, load.peer),
    peak_rss_bytes: pairOf(peak.own, peak.peer, 0),
  };
}

/** The flags that decide how our processes compute; what they do not name comes from the environment, as here. */
function ownCommand(
  options: LoaderOptions,
  { batchedTokensMax, cacheBlockSize, repack }: Settings,
): OwnCommand {
  const { path, threads, instructionSet, kvCacheType, activations } = options;
  return {
    path,
    flags: [
      "--cpu",
      ...["--threads", String(threads)],
      ...["--repack", repack],
      ...["--pa-cache-type", kvCacheType],
      ...(activations === undefined ? [] : ["--activations", activations]),
      ...["--max-num-batched-tokens", String(batchedTokensMax)],
      ...(options.pagedAttention ? ["--pa-block-size", String(cacheBlockSize)] : ["--paged-attn", "off"]),
      ...(options.mmap ? [] : ["--no-mmap"]),
      ...(instructionSet === undefined ? [] : ["--instruction-set", instructionSet]),
    ],
  };
}

function factsOf(
  id: string,
  { info }: LoadedModel,
  repetitions: number,
): Pick<
  Comparison,
  | "model"
  | "architecture"
  | "weight_bytes"
  | "threads"
  | "instruction_set"
  | "kv_cache_type"
  | "activations"
  | "repetitions"
> {
  return {
    model: id,
    architecture: info.architecture,
    weight_bytes: info.weightBytes,
    threads: info.threads,
    instruction_set: info.instructionSet,
    kv_cache_type: info.kvCacheType,
    activations: info.activations,
    repetitions,
  };
}

function distinct(values: readonly number[]): readonly number[] {
  return [...new Set(values)].sort((a, b) => a - b);
}
