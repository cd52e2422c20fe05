/** From the times of a benchmark's repetitions to its figures, as one JSON object or as a table. */

import type { ActivationPrecision } from "../../graph/builder.ts";
import { textTable } from "../text-table.ts";
import { formatBytes, formatDuration } from "../units.ts";
import { type PhaseStages, stageTable } from "./stage-times.ts";
import type { RunTimes, Workload } from "./workload.ts";

/** What `bench --json` prints; speeds count the tokens of the whole batch, medians over the repetitions. */
export interface BenchReport {
  readonly model: string;
  readonly architecture: string;
  readonly threads: number;
  readonly instruction_set: string;
  readonly activations: ActivationPrecision;
  /** A GPU's name and number; absent on the processor. */
  readonly device?: string;
  readonly batch: number;
  readonly depth: number;
  readonly prompt_len: number;
  readonly gen_len: number;
  readonly repetitions: number;
  readonly prefill_tokens_per_s: number;
  readonly prefill_tokens_per_s_min: number;
  readonly prefill_tokens_per_s_max: number;
  readonly decode_tokens_per_s: number;
  readonly decode_tokens_per_s_min: number;
  readonly decode_tokens_per_s_max: number;
  readonly load_seconds: number;
  /** From the start of the process to the first sampled token: load, compilation of code and one prefill. */
  readonly first_token_seconds: number;
  readonly weight_bytes: number;
  readonly peak_rss_bytes: number;
  /** With --stage-times. */
  readonly stage_times?: readonly PhaseStages[];
}

export interface BenchSubject {
  readonly model: string;
  readonly architecture: string;
  readonly threads: number;
  readonly instructionSet: string;
  readonly activations: ActivationPrecision;
  readonly device?: string | undefined;
  readonly loadSeconds: number;
  readonly firstTokenSeconds: number;
  readonly weightBytes: number;
  readonly peakRssBytes: number;
}

/** The figures of a benchmark; `runs` are the measured repetitions, at least one. */
export function summarise(
  subject: BenchSubject,
  workload: Workload,
  runs: readonly RunTimes[],
  stages?: readonly PhaseStages[],
): BenchReport {
  const promptTokens = workload.batch * workload.promptLength;
  const generatedTokens = workload.batch * workload.generatedLength;
  const prefill = spread(runs.map((run) => promptTokens / run.prefillSeconds));
  const decode = spread(runs.map((run) => generatedTokens / run.decodeSeconds));
  return {
    model: subject.model,
    architecture: subject.architecture,
    threads: subject.threads,
    instruction_set: subject.instructionSet,
    activations: subject.activations,
    ...(subject.device === undefined ? {} : { device: subject.device }),
    batch: workload.batch,
    depth: workload.depth,
    prompt_len: workload.promptLength,
    gen_len: workload.generatedLength,
    repetitions: runs.length,
    prefill_tokens_per_s: prefill.median,
    prefill_tokens_per_s_min: prefill.min,
    prefill_tokens_per_s_max: prefill.max,
    decode_tokens_per_s: decode.median,
    decode_tokens_per_s_min: decode.min,
    decode_tokens_per_s_max: decode.max,
    load_seconds: round(subject.loadSeconds, 4),
    first_token_seconds: round(subject.firstTokenSeconds, 4),
    weight_bytes: subject.weightBytes,
    peak_rss_bytes: subject.peakRssBytes,
    ...(stages === undefined ? {} : { stage_times: stages }),
  };
}

/** A table for people: what was measured, then a row per phase of each report. All are of the same model. */
export function benchTable(reports: readonly BenchReport[]): string {
  const [first] = reports;
  if (first === undefined) throw new Error("a benchmark of nothing");
  const facts = [
    ["Model", `${first.model} (${first.architecture}, ${formatBytes(first.weight_bytes)})`],
    first.device === undefined
      ? ["Threads", `${first.threads}, ${first.instruction_set}, activations ${first.activations}`]
      : ["Device", `${first.device}, ${first.instruction_set}, activations ${first.activations}`],
    ["Load", formatDuration(first.load_seconds)],
    ["First token", `${formatDuration(first.first_token_seconds)} after the start of the process`],
    ["Peak memory", formatBytes(Math.max(...reports.map(({ peak_rss_bytes }) => peak_rss_bytes)))],
  ];
  const rows = [["", "tokens/s", "min", "max"], ...reports.flatMap((report) => phaseRows(report))];
  const stages = reports
    .flatMap(({ stage_times = [] }) => stage_times)
    .map((phase) => `\n${stageTable(phase)}`);
  return `${textTable(facts)}\n${textTable(rows, { alignRight: [1, 2, 3] })}${stages.join("")}`;
}

function phaseRows(report: BenchReport): string[][] {
  const { depth, batch, prompt_len: prompt, gen_len: generated } = report;
  const sequences = batch === 1 ? "" : `, ${batch} sequences`;
  const at = (tokens: number): string => (tokens === 0 ? "" : ` @ d${tokens}`);
  return [
    [
      `Prefill (${prompt} tokens${at(depth)}${sequences})`,
      ...[report.prefill_tokens_per_s, report.prefill_tokens_per_s_min, report.prefill_tokens_per_s_max].map(
        oneDigit,
      ),
    ],
    [
      `Decode (${generated} tokens${at(depth + prompt)}${sequences})`,
      ...[report.decode_tokens_per_s, report.decode_tokens_per_s_min, report.decode_tokens_per_s_max].map(
        oneDigit,
      ),
    ],
  ];
}

function oneDigit(speed: number): string {
  return speed.toFixed(1);
}

interface Spread {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length / 2;
  const median = (sorted[Math.ceil(middle) - 1]! + sorted[Math.floor(middle)]!) / 2;
  return { median: round(median, 2), min: round(sorted[0]!, 2), max: round(sorted.at(-1)!, 2) };
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}
