/**
 * `bench --against llama.cpp` or `onnxruntime`: both sides on the same file with the same threads, by turns: prompts of each length,
 * tokens generated behind each depth by each number of sequences, and whole processes. Progress goes to stderr.
 */

import type { Resolution } from "../../../config/resolve.ts";
import type { Settings } from "../../../config/settings.ts";
import { MistralError } from "../../../errors.ts";
import { loadModel } from "../../../models/load-model.ts";
import type { LoadedModel } from "../../../models/loaded-model.ts";
import { fetchModel } from "../../fetch-model.ts";
import type { Log } from "../../log.ts";
import { prepareModel } from "../../prepare-model.ts";
import type { LoaderOptions } from "../../runner-options.ts";
import { formatDuration } from "../../units.ts";
import { blocksOf } from "../bench-step.ts";
import { MachineLimits } from "../machine-limits.ts";
import { requireRoom } from "../room.ts";
import { type Cell, type Comparison, comparisonRow, comparisonTable, pairOf } from "./comparison.ts";
import { installLlama } from "./llama.ts";
import { onnxPeer } from "./onnx/onnx.ts";
import { OwnSide } from "./own-side.ts";
import type { Peer, PeerName, PeerOptions, Way } from "./peer.ts";
import type { PeerProcess } from "./peer-process.ts";
import { StepWork } from "./step-bounds.ts";
import { type Contest, contest, type Turn } from "./turns.ts";
import { type OwnCommand, ownFirstToken, ownProcess, peerFirstToken, peerProcess } from "./whole-process.ts";

/** A turn of generating is as many steps as the slower side does in about this time, at most as many as asked for. */
const TURN_SECONDS = 2;
const TRIAL_STEPS = 4;
/** Whole processes are short and vary more. */
const PROCESS_REPETITIONS_MIN = 3;

/** Runs the comparison. Throws MistralError when the model or the other engine cannot do what is asked for. */
export async function benchAgainst({ settings }: Resolution, against: PeerName, log: Log): Promise<void> {
  const resolved = await fetchModel(settings, log);
  if (!resolved.checkpointPath.endsWith(".gguf")) {
    throw new MistralError(
      "invalid_configuration",
      `--against ${against}: it reads GGUF files, not ${resolved.checkpointPath}`,
      { parameter: "--against" },
    );
  }
  // Before our model is loaded: there may be nothing to compare with.
  const installed = against === "llama.cpp" ? await installLlama() : undefined;
  const sequences = Math.max(...settings.batch);
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
  prepared.tellPlan();
  const other = installed ?? (await onnxPeer(checkpoint, { threads: options.threads }));
  const promptTokens = Math.max(...settings.promptLength, ...settings.depth);
  const totalTokens = promptTokens + settings.generatedLength;
  const peerOptions: PeerOptions = {
    path: options.path,
    threads: options.threads,
    sequences,
    contextLength: totalTokens + 1,
    kvCacheType: options.kvCacheType,
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
    const work = new StepWork(checkpoint, options.kvCacheType);
    const arena = new Arena({ own, other, peer, settings, log });
    const prefill = await arena.prefill();
    const decode = await arena.decode();
    const rows = [...prefill, ...decode].map(({ cell, result }) => {
      const bound =
        cell.phase === "prefill"
          ? work.prefillBound(limits, cell.tokens)
          : work.decodeBound(limits, cell.depth + cell.tokens / 2, cell.sequences);
      return comparisonRow(cell, result, bound);
    });
    const { way } = prefill.at(-1)!.result;
    await peer.close();
    const facts = factsOf(resolved.id, model, settings.repetitions);
    model.close();
    const processes = await compareProcesses(other, peerOptions, ownCommand(options, settings), {
      promptTokens: Math.max(...settings.promptLength),
      way,
      repetitions: Math.max(settings.repetitions, PROCESS_REPETITIONS_MIN),
      log,
    });
    const contests = [...prefill, ...decode].map(({ result }) => result);
    const tile = limits.int8TileOpsPerSecond;
    const comparison: Comparison = {
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
    process.stdout.write(settings.json ? `${JSON.stringify(comparison)}\n` : comparisonTable(comparison));
  } finally {
    await peer.close();
    model.close();
  }
}

interface Measured {
  readonly cell: Cell;
  readonly result: Contest;
}

interface ArenaOptions {
  readonly own: OwnSide;
  readonly other: Peer;
  /** Of the other side. */
  readonly peer: PeerProcess;
  readonly settings: Settings;
  readonly log: Log;
}

class Arena {
  readonly #own: OwnSide;
  readonly #other: Peer;
  readonly #peer: PeerProcess;
  readonly #settings: Settings;
  readonly #log: Log;

  constructor({ own, other, peer, settings, log }: ArenaOptions) {
    this.#own = own;
    this.#other = other;
    this.#peer = peer;
    this.#settings = settings;
    this.#log = log;
  }

  async prefill(): Promise<Measured[]> {
    const measured: Measured[] = [];
    for (const tokens of this.#settings.promptLength) {
      // A prompt that does not count: pages come into being, threads start.
      this.#own.prefill(tokens);
      for (const way of this.#other.ways) await this.#peerTurn(way, () => this.#peer.prefill(tokens));
      const result = await contest(
        {
          own: () => this.#own.prefill(tokens),
          peer: (way) => this.#peerTurn(way, () => this.#peer.prefill(tokens)),
          ways: this.#other.ways,
        },
        this.#settings.repetitions,
      );
      measured.push(this.#tell({ phase: "prefill", tokens, depth: 0, sequences: 1 }, result));
    }
    return measured;
  }

  /** Shallow depths first: what is computed for one is the beginning of the next. */
  async decode(): Promise<Measured[]> {
    const measured: Measured[] = [];
    for (const depth of ascending(this.#settings.depth)) {
      for (const sequences of ascending(this.#settings.batch)) {
        const peerTurn = (steps: number, way: Way): Promise<Turn> =>
          this.#peerTurn(way, () => this.#peer.decode(steps, depth, sequences));
        const trials = [this.#own.decode(TRIAL_STEPS, depth, sequences)];
        for (const way of this.#other.ways) trials.push((await peerTurn(TRIAL_STEPS, way)).seconds);
        const affordable = Math.floor((TURN_SECONDS * TRIAL_STEPS) / Math.max(...trials));
        const steps = Math.min(this.#settings.generatedLength, Math.max(TRIAL_STEPS, affordable));
        const result = await contest(
          {
            own: () => this.#own.decode(steps, depth, sequences),
            peer: (way) => peerTurn(steps, way),
            ways: this.#other.ways,
          },
          this.#settings.repetitions,
        );
        measured.push(this.#tell({ phase: "decode", tokens: steps, depth, sequences }, result));
      }
    }
    return measured;
  }

  async #peerTurn(way: Way, turn: () => ReturnType<PeerProcess["prefill"]>): Promise<Turn> {
    await this.#peer.use(way);
    const { seconds, processor_seconds } = await turn();
    return { seconds, processorSeconds: processor_seconds };
  }

  #tell(cell: Cell, result: Contest): Measured {
    const { phase, tokens, depth, sequences } = cell;
    const shown = (times: readonly number[]): string => times.map((time) => formatDuration(time)).join(", ");
    this.#log.write(
      "info",
      `${phase} of ${tokens} tokens at depth ${depth}, sequences: ${sequences}; ours ${shown(result.own)}; ${this.#other.name} ${shown(result.peer)}`,
    );
    return { cell, result };
  }
}

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
): Promise<Pick<Comparison, "first_token_seconds" | "load_seconds" | "peak_rss_bytes">> {
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

function ascending(values: readonly number[]): readonly number[] {
  return [...new Set(values)].sort((a, b) => a - b);
}
