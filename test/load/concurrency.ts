/**
 * Throughput and latency under 1, 4, 16 and 64 clients, by hand:
 *
 *   bun test/load/concurrency.ts [--clients 1,4,16,64] [--requests 4] [--own 128] [--generated 64] [--shared 0,1000]
 *     [--threads 2] [--file model.gguf] [--peer FOLDER] [--peer-seconds 300] [--json]
 *
 * Starts `serve` with the default model (or a GGUF file), sends streamed completions of prompts made from a seed, with
 * and without a prefix that all share, and prints for each level tokens per second and the 50th and 99th percentiles of
 * the time to the first token and between tokens. `--peer` names a folder with node_modules/node-llama-cpp: the same
 * prompts then run on llama.cpp, on the same file, a slot for each client, without HTTP between. A level that it does
 * not finish in `--peer-seconds` is left out.
 */

import { join } from "node:path";
import { parseArgs } from "node:util";
import { defaultThreads } from "../../src/config/threads.ts";
import { resolveModel } from "../../src/weights/resolve.ts";
import { LOOPBACK, startServing } from "../cli/processes.ts";
import { type Level, type LevelResult, promptsOf, type RequestTimes, summarise } from "./workload.ts";

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "1,4,16,64" },
    requests: { type: "string", default: "4" },
    own: { type: "string", default: "128" },
    generated: { type: "string", default: "64" },
    shared: { type: "string", default: "0,1000" },
    threads: { type: "string", default: String(defaultThreads()) },
    file: { type: "string" },
    peer: { type: "string" },
    "peer-seconds": { type: "string", default: "300" },
    json: { type: "boolean", default: false },
  },
});
const list = (text: string): number[] => text.split(",").map(Number);
const threads = Number(values.threads);
const levels: Level[] = list(values.shared).flatMap((sharedTokens, index) =>
  list(values.clients).map((clients) => ({
    clients,
    requestsPerClient: Number(values.requests),
    sharedTokens,
    ownTokens: sharedTokens === 0 ? Number(values.own) : Math.ceil(Number(values.own) / 4),
    generatedTokens: Number(values.generated),
    seed: 1 + index * 100 + clients,
  })),
);

interface Chunk {
  readonly choices: readonly { readonly text: string; readonly finish_reason: string | null }[];
  readonly usage?: {
    readonly completion_tokens: number;
    readonly prompt_tokens_details: { readonly cached_tokens: number };
  } | null;
}

async function request(
  url: string,
  prompt: readonly number[],
  generatedTokens: number,
): Promise<RequestTimes> {
  const started = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      prompt,
      max_tokens: generatedTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (response.status !== 200) throw new Error(`status ${response.status}: ${await response.text()}`);
  const arrivals: number[] = [];
  let usage: Chunk["usage"];
  let rest = "";
  for await (const part of response.body!.pipeThrough(new TextDecoderStream())) {
    const nowMs = performance.now();
    const events = (rest + part).split("\n\n");
    rest = events.pop() ?? "";
    for (const event of events) {
      if (!event.startsWith("data: {")) continue;
      const chunk = JSON.parse(event.slice(6)) as Chunk;
      usage = chunk.usage ?? usage;
      if (chunk.choices[0]?.finish_reason === null) arrivals.push(nowMs);
    }
  }
  return {
    firstTokenMs: (arrivals[0] ?? Number.NaN) - started,
    betweenMs: arrivals.slice(1).map((arrival, index) => arrival - arrivals[index]!),
    generatedTokens: usage?.completion_tokens ?? 0,
    cachedTokens: usage?.prompt_tokens_details.cached_tokens ?? 0,
  };
}

async function measure(url: string, level: Level): Promise<LevelResult> {
  const prompts = promptsOf(level);
  const started = performance.now();
  const times = await Promise.all(
    prompts.map(async (ofClient) => {
      const own: RequestTimes[] = [];
      for (const prompt of ofClient) own.push(await request(url, prompt, level.generatedTokens));
      return own;
    }),
  );
  return summarise("mistral.ts", level, times.flat(), (performance.now() - started) / 1000);
}

/** Undefined when the level took too long. */
async function measurePeer(folder: string, model: string, level: Level): Promise<LevelResult | undefined> {
  const order = {
    module: join(folder, "node_modules/node-llama-cpp/dist/index.js"),
    model,
    threads,
    contextSize: level.sharedTokens + level.ownTokens + level.generatedTokens + 16,
    prompts: promptsOf(level),
    generatedTokens: level.generatedTokens,
  };
  const child = Bun.spawn(["node", join(import.meta.dir, "llama-cpp.mjs")], {
    stdin: new Blob([JSON.stringify(order)]),
    stdout: "pipe",
    stderr: "ignore",
    timeout: Number(values["peer-seconds"]) * 1000,
    killSignal: "SIGKILL",
  });
  const text = await new Response(child.stdout).text();
  const status = await child.exited;
  if (child.signalCode === "SIGKILL") return undefined;
  if (status !== 0) throw new Error(`llama.cpp ended with status ${status}`);
  const { seconds, times } = JSON.parse(text.slice(text.indexOf("{"))) as {
    seconds: number;
    times: RequestTimes[];
  };
  return summarise("llama.cpp", level, times, seconds);
}

function show(result: LevelResult): void {
  if (values.json) return;
  const cells = [
    result.engine.padEnd(11),
    `${result.clients}`.padStart(7),
    `${result.shared_prefix_tokens}`.padStart(7),
    `${result.generated_tokens_per_s}`.padStart(10),
    `${result.total_tokens_per_s}`.padStart(10),
    `${result.ttft_ms_p50} / ${result.ttft_ms_p99}`.padStart(20),
    `${result.inter_token_ms_p50} / ${result.inter_token_ms_p99}`.padStart(18),
    `${result.cached_tokens}`.padStart(8),
  ];
  console.log(cells.join("  "));
}

const source = { model: undefined, file: values.file, onProgress: () => {}, environment: process.env };
const { checkpointPath } = await resolveModel(source);
const { child, url } = await startServing([
  "serve",
  "-f",
  checkpointPath,
  "--threads",
  String(threads),
  "--max-seqs",
  String(Math.max(...list(values.clients))),
  "--disable-access-log",
  ...LOOPBACK,
]);
const results: LevelResult[] = [];
if (!values.json) {
  console.log(
    "engine       clients   shared  gen tok/s  all tok/s   first token p50/p99   between p50/p99    cached",
  );
}
try {
  // What the first steps compile and map is not measured.
  await measure(url, { ...levels[0]!, clients: 2, requestsPerClient: 1, seed: 99_999 });
  for (const level of levels) {
    const result = await measure(url, level);
    results.push(result);
    show(result);
  }
} finally {
  child.kill("SIGTERM");
  await child.exited;
}
if (values.peer !== undefined) {
  for (const level of levels) {
    const result = await measurePeer(values.peer, checkpointPath, level);
    if (result !== undefined) {
      results.push(result);
      show(result);
    } else if (!values.json) {
      console.log(
        `llama.cpp    ${level.clients} clients, ${level.sharedTokens} shared: not done in ${values["peer-seconds"]} s`,
      );
    }
  }
}
if (values.json) console.log(JSON.stringify({ model: checkpointPath, threads, results }));
