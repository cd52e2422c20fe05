/** `bench`: loads a model in this process, runs the workload and prints its figures. Progress goes to stderr. */

import { readFileSync } from "node:fs";
import type { Resolution } from "../../config/resolve.ts";
import { MistralError } from "../../errors.ts";
import { loadModel } from "../../models/load-model.ts";
import type { LoadedModel } from "../../models/loaded-model.ts";
import { fetchModel } from "../fetch-model.ts";
import { type Log, openLog } from "../log.ts";
import { prepareModel } from "../prepare-model.ts";
import { formatCount, formatDuration } from "../units.ts";
import { openPeer, type Peer, withPeer } from "./peer.ts";
import { type BenchReport, type BenchSubject, benchTable, summarise } from "./report.ts";
import {
  blocksOfWorkload,
  type RunTimes,
  runWorkload,
  tokensPerSequence,
  type Workload,
} from "./workload.ts";

/** Runs the benchmark. Throws MistralError when the model cannot be loaded or has no room for a workload. */
export async function bench({ settings, warnings }: Resolution): Promise<void> {
  const log = openLog(settings);
  for (const warning of warnings) log.write("warning", warning);
  const workloads = settings.depth.flatMap((depth) =>
    settings.promptLength.map((promptLength): Workload => {
      const { batch, generatedLength, seed = 0n } = settings;
      return { batch, depth, promptLength, generatedLength, seed };
    }),
  );
  const resolved = await fetchModel(settings, log);
  const { options, tellPlan } = prepareModel(
    resolved,
    {
      ...settings,
      sequencesMax: settings.batch,
      batchedTokensMax: Math.max(settings.batchedTokensMax, settings.batch),
    },
    log,
  );
  const peer = settings.peer === undefined ? undefined : openPeer(settings, options);
  tellPlan();
  const model = await loadModel(options);
  let reports: readonly BenchReport[];
  try {
    for (const workload of workloads) requireRoom(model, workload);
    let firstTokenSeconds: number | undefined;
    reports = workloads.map((workload) => {
      const measured = measure(model, workload, settings, log);
      firstTokenSeconds ??= measured.firstTokenSeconds;
      return summarise(subjectOf(resolved.id, model, firstTokenSeconds), workload, measured.times);
    });
  } finally {
    model.close();
  }
  // After our own: two programs at once would take each other's cores.
  if (peer !== undefined) reports = await comparedWith(peer, reports, log);
  const json = (): string => JSON.stringify(reports.length === 1 ? reports[0] : reports);
  process.stdout.write(settings.json ? `${json()}\n` : benchTable(reports));
}

/** One after the other, for the same reason. */
async function comparedWith(
  peer: Peer,
  reports: readonly BenchReport[],
  log: Log,
): Promise<readonly BenchReport[]> {
  const compared: BenchReport[] = [];
  for (const report of reports) compared.push(await withPeer(report, peer, log));
  return compared;
}

function subjectOf(id: string, { info }: LoadedModel, firstTokenSeconds: number): BenchSubject {
  return {
    model: id,
    architecture: info.architecture,
    threads: info.threads,
    instructionSet: info.instructionSet,
    loadSeconds: info.loadSeconds,
    firstTokenSeconds,
    weightBytes: info.weightBytes,
    peakRssBytes: peakRssBytes(),
  };
}

/** The repetitions, and when the very first token was there, in seconds since the process began. */
function measure(
  model: LoadedModel,
  workload: Workload,
  { warmup, repetitions }: Resolution["settings"],
  log: Log,
): { readonly times: readonly RunTimes[]; readonly firstTokenSeconds: number } {
  const clock = () => performance.now();
  let firstTokenSeconds = 0;
  const times: RunTimes[] = [];
  for (let run = 0; run < warmup + repetitions; run++) {
    const startedMs = clock();
    const result = runWorkload(model, workload, clock);
    if (run === 0) firstTokenSeconds = startedMs / 1000 + result.prefillSeconds;
    if (run >= warmup) times.push(result);
    const name =
      run < warmup ? `warm-up ${run + 1} of ${warmup}` : `run ${run - warmup + 1} of ${repetitions}`;
    log.write(
      "info",
      `${name}: prefill ${formatDuration(result.prefillSeconds)}, decode ${formatDuration(result.decodeSeconds)}`,
    );
  }
  return { times, firstTokenSeconds };
}

/** Refuses a workload that the loaded model cannot hold, before anything runs. */
function requireRoom({ limits }: LoadedModel, workload: Workload): void {
  const tokens = tokensPerSequence(workload);
  if (tokens > limits.contextLength) {
    const depth = workload.depth === 0 ? "" : `--depth ${workload.depth}, `;
    throw new MistralError(
      "invalid_configuration",
      `${depth}--prompt-len ${workload.promptLength} and --gen-len ${workload.generatedLength} make ${formatCount(tokens)} tokens, more than the context of ${formatCount(limits.contextLength)}`,
      { parameter: "--prompt-len" },
    );
  }
  const blocks = blocksOfWorkload(workload, limits.blockSize);
  if (blocks > limits.blockCount) {
    throw new MistralError(
      "insufficient_memory",
      `${workload.batch} sequences of ${formatCount(tokens)} tokens need ${formatCount(blocks)} KV blocks of ${limits.blockSize} tokens, the pool has ${formatCount(limits.blockCount)}; raise --pa-memory-mb or lower --batch`,
      { parameter: "--batch" },
    );
  }
}

/** The most memory this process ever had in use. */
function peakRssBytes(): number {
  try {
    const match = /^VmHWM:\s+(\d+) kB$/m.exec(readFileSync("/proc/self/status", "utf8"));
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux: what the runtime was told by the operating system.
  }
  return process.resourceUsage().maxRSS * 1024;
}
