/**
 * What is lost between the kernels and a caller, by hand:
 *
 *   bun test/load/overhead.ts [--file model.gguf] [--threads 2] [--sequences 1,8] [--prompt 64] [--generated 256]
 *     [--rounds 5] [--paths steps,engine,http] [--json]
 *
 * Decodes with the same model, threads and context by three paths in turn: `steps`, the bare steps that `bench`
 * measures; `engine`, the engine within this process; `http`, streamed completions of a `serve` of its own on the
 * loopback address. Prints the median tokens per second of each path and its share of the first one's median. The rate
 * of a sequence is that of the tokens after its first; the sequences' rates are added.
 */

import { parseArgs } from "node:util";
import { runWorkload } from "../../src/cli/bench/workload.ts";
import { defaultThreads } from "../../src/config/threads.ts";
import { InProcessEngine } from "../../src/engine/in-process-engine.ts";
import type { GenerateRequest } from "../../src/engine/messages.ts";
import { engineInfo } from "../../src/engine/runner-module.ts";
import { loadModel } from "../../src/models/load-model.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import { resolveModel } from "../../src/weights/resolve.ts";
import { LOOPBACK, type ServingProcess, startServing } from "../cli/processes.ts";
import { promptsOf } from "./workload.ts";

const PATHS = ["steps", "engine", "http"] as const;
type Path = (typeof PATHS)[number];

const { values } = parseArgs({
  options: {
    file: { type: "string" },
    threads: { type: "string", default: String(defaultThreads()) },
    sequences: { type: "string", default: "1,8" },
    prompt: { type: "string", default: "64" },
    generated: { type: "string", default: "256" },
    rounds: { type: "string", default: "5" },
    paths: { type: "string", default: PATHS.join() },
    json: { type: "boolean", default: false },
  },
});
const threads = Number(values.threads);
const batches = values.sequences.split(",").map(Number);
const promptTokens = Number(values.prompt);
const generatedTokens = Number(values.generated);
const paths = PATHS.filter((path) => values.paths.split(",").includes(path));

/** When a sequence's first and last token came, in milliseconds. */
interface Span {
  readonly firstMs: number;
  readonly lastMs: number;
}

interface Row {
  readonly path: Path;
  readonly sequences: number;
  readonly tokens_per_s: number;
  readonly tokens_per_s_min: number;
  readonly tokens_per_s_max: number;
  /** Of the first path's. */
  readonly share: number;
}

function prompts(sequences: number, round: number): number[][] {
  const level = { clients: sequences, requestsPerClient: 1, sharedTokens: 0, ownTokens: promptTokens };
  return promptsOf({ ...level, generatedTokens, seed: round * 100 + sequences }).map(([prompt]) => prompt!);
}

/** Tokens per second of all sequences together. */
function rateOf(spans: readonly Span[]): number {
  return spans.reduce(
    (sum, { firstMs, lastMs }) => sum + ((generatedTokens - 1) * 1000) / (lastMs - firstMs),
    0,
  );
}

function bySteps(model: LoadedModel, sequences: number, round: number): number {
  const shape = {
    batch: sequences,
    depth: 0,
    promptLength: promptTokens,
    generatedLength: generatedTokens - 1,
  };
  const { decodeSeconds } = runWorkload(model, { ...shape, seed: BigInt(round) }, () => performance.now());
  return (sequences * (generatedTokens - 1)) / decodeSeconds;
}

async function byEngine(engine: InProcessEngine, sequences: number, round: number): Promise<number> {
  const spans = prompts(sequences, round).map(async (prompt): Promise<Span> => {
    let firstMs = Number.NaN;
    let lastMs = Number.NaN;
    for await (const event of engine.generate(requestOf(prompt))) {
      if (event.type === "error") throw new Error(event.message);
      if (event.type !== "tokens") continue;
      lastMs = performance.now();
      if (Number.isNaN(firstMs)) firstMs = lastMs;
    }
    return { firstMs, lastMs };
  });
  return rateOf(await Promise.all(spans));
}

function requestOf(prompt: readonly number[]): Omit<GenerateRequest, "id"> {
  return {
    promptTokens: Int32Array.from(prompt),
    maxTokens: generatedTokens,
    stopTokens: [],
    promptLogprobs: -1,
    sampling: {
      temperature: 0,
      topK: 0,
      topP: 1,
      minP: 0,
      seed: 0n,
      frequencyPenalty: 0,
      presencePenalty: 0,
      repetitionPenalty: 1,
      logitBias: [],
      logprobs: -1,
    },
  };
}

async function byHttp(url: string, sequences: number, round: number): Promise<number> {
  const spans = prompts(sequences, round).map(async (prompt): Promise<Span> => {
    const response = await fetch(`${url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        prompt,
        max_tokens: generatedTokens,
        temperature: 0,
        ignore_eos: true,
        stream: true,
      }),
    });
    if (response.status !== 200) throw new Error(`status ${response.status}: ${await response.text()}`);
    let firstMs = Number.NaN;
    let lastMs = Number.NaN;
    // The client shares the machine with the server: it looks at the clock, not at what the events say.
    for await (const _ of response.body!) {
      lastMs = performance.now();
      if (Number.isNaN(firstMs)) firstMs = lastMs;
    }
    return { firstMs, lastMs };
  });
  return rateOf(await Promise.all(spans));
}

function median(numbers: readonly number[]): number {
  const sorted = numbers.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)]!;
}

function rowsOf(sequences: number, rates: ReadonlyMap<Path, readonly number[]>): Row[] {
  const base = median(rates.get(paths[0]!)!);
  return paths.map((path) => {
    const own = rates.get(path)!;
    return {
      path,
      sequences,
      tokens_per_s: Math.round(median(own) * 10) / 10,
      tokens_per_s_min: Math.round(Math.min(...own) * 10) / 10,
      tokens_per_s_max: Math.round(Math.max(...own) * 10) / 10,
      share: Math.round((median(own) / base) * 1000) / 1000,
    };
  });
}

const source = { model: undefined, file: values.file, onProgress: () => {}, environment: process.env };
const { checkpointPath } = await resolveModel(source);
const sequencesMax = Math.max(...batches);
const tokensMax = Math.max(512, sequencesMax);
const model = await loadModel({
  path: checkpointPath,
  threads,
  sequencesMax,
  tokensMax,
  contextLengthMax: promptTokens + generatedTokens + 64,
  kvCacheType: "f16",
  blockSize: 32,
  mmap: true,
});
const engine = new InProcessEngine(model, engineInfo(checkpointPath, model), { prefixCache: false });
let server: ServingProcess | undefined;
try {
  if (paths.includes("http")) {
    const limits = ["--max-seqs", String(sequencesMax), "--max-num-batched-tokens", String(tokensMax)];
    const own = ["--threads", String(threads), "--prefix-cache-n", "0", "--disable-access-log"];
    server = await startServing(["serve", "-f", checkpointPath, ...own, ...limits, ...LOOPBACK]);
  }
  const measure = (path: Path, sequences: number, round: number): number | Promise<number> => {
    if (path === "steps") return bySteps(model, sequences, round);
    return path === "engine" ? byEngine(engine, sequences, round) : byHttp(server!.url, sequences, round);
  };
  const rows: Row[] = [];
  for (const sequences of batches) {
    const rates = new Map<Path, number[]>(paths.map((path) => [path, []]));
    // Round 0 warms up: what it compiles and touches first is not measured.
    for (let round = 0; round <= Number(values.rounds); round++) {
      for (const path of round % 2 === 0 ? paths : paths.toReversed()) {
        const rate = await measure(path, sequences, round);
        if (round > 0) rates.get(path)!.push(rate);
      }
    }
    rows.push(...rowsOf(sequences, rates));
  }
  if (values.json) {
    const shape = { prompt_tokens: promptTokens, generated_tokens: generatedTokens };
    console.log(JSON.stringify({ model: checkpointPath, threads, ...shape, rows }));
  } else {
    console.log("path    sequences    tok/s         min - max    share");
    for (const row of rows) {
      const range = `${row.tokens_per_s_min} - ${row.tokens_per_s_max}`;
      const share = `${(row.share * 100).toFixed(1)} %`;
      console.log(
        `${row.path.padEnd(6)}  ${`${row.sequences}`.padStart(9)}  ${`${row.tokens_per_s}`.padStart(7)}  ${range.padStart(16)}  ${share.padStart(7)}`,
      );
    }
  }
} finally {
  server?.child.kill("SIGTERM");
  await server?.child.exited;
  await engine.close();
}
