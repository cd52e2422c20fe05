/** `bench`: loads a model in this process, runs the workload and prints its figures. Progress goes to stderr. */

import { readFileSync } from "node:fs";
import type { Resolution } from "../../config/resolve.ts";
import { MistralError } from "../../errors.ts";
import { loadModel } from "../../models/load-model.ts";
import type { LoadedModel } from "../../models/loaded-model.ts";
import { fetchModel } from "../fetch-model.ts";
import { type Log, openLog } from "../log.ts";
import { prepareModel } from "../prepare-model.ts";
import { formatDuration } from "../units.ts";
import { type BenchSubject, benchTable, summarise } from "./report.ts";
import { requireRoom } from "./room.ts";
import { measureStages } from "./stage-times.ts";
import {
  blocksOfWorkload,
  type RunTimes,
  runWorkload,
  tokensPerSequence,
  type Workload,
} from "./workload.ts";

/** Runs the benchmark. Throws MistralError when the model cannot be loaded or has no room for a workload. */
export async function bench(resolution: Resolution): Promise<void> {
  const { settings, warnings } = resolution;
  const log = openLog(settings);
  for (const warning of warnings) log.write("warning", warning);
  if (settings.against !== undefined) {
    if (settings.stageTimes) throw noStages("another engine is not measured by stages");
    return (await import("./against/against.ts")).benchAgainst(resolution, settings.against, log);
  }
  const { generatedLength, seed = 0n } = settings;
  const workloads = settings.batch.flatMap((batch) =>
    settings.depth.flatMap((depth) =>
      settings.promptLength.map(
        (promptLength): Workload => ({ batch, depth, promptLength, generatedLength, seed }),
      ),
    ),
  );
  const sequences = Math.max(...settings.batch);
  const resolved = await fetchModel(settings, log);
  const { options, tellPlan } = prepareModel(
    resolved,
    {
      ...settings,
      sequencesMax: sequences,
      batchedTokensMax: Math.max(settings.batchedTokensMax, sequences),
    },
    log,
  );
  if (settings.stageTimes && options.device?.kind === "cuda") throw noStages("stages are the processor's");
  await tellPlan();
  const model = await loadModel(options);
  try {
    for (const workload of workloads) requireRoomFor(model, workload);
    let firstTokenSeconds: number | undefined;
    const reports = workloads.map((workload) => {
      const measured = measure(model, workload, settings, log);
      firstTokenSeconds ??= measured.firstTokenSeconds;
      const stages = settings.stageTimes ? measureStages(model, workload) : undefined;
      return summarise(subjectOf(resolved.id, model, firstTokenSeconds), workload, measured.times, stages);
    });
    const json = (): string => JSON.stringify(reports.length === 1 ? reports[0] : reports);
    process.stdout.write(settings.json ? `${json()}\n` : benchTable(reports));
  } finally {
    model.close();
  }
}

function noStages(why: string): MistralError {
  return new MistralError("invalid_configuration", `--stage-times: ${why}; leave it out`, {
    parameter: "--stage-times",
  });
}

function subjectOf(id: string, { info }: LoadedModel, firstTokenSeconds: number): BenchSubject {
  return {
    model: id,
    architecture: info.architecture,
    threads: info.threads,
    instructionSet: info.instructionSet,
    activations: info.activations,
    device: info.device,
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

function requireRoomFor({ limits }: LoadedModel, workload: Workload): void {
  const depth = workload.depth === 0 ? "" : `--depth ${workload.depth}, `;
  requireRoom(limits, {
    sequences: workload.batch,
    tokens: tokensPerSequence(workload),
    blocks: blocksOfWorkload(workload, limits.blockSize),
    what: `${depth}--prompt-len ${workload.promptLength} and --gen-len ${workload.generatedLength}`,
  });
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
