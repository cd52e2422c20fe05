/** From the times of a benchmark's repetitions to its figures, as one JSON object or as a table. */

import { formatBytes, formatDuration } from "../units.ts";
import type { RunTimes, Workload } from "./workload.ts";

/** What `bench --json` prints; speeds count the tokens of the whole batch, medians over the repetitions. */
export interface BenchReport {
  readonly model: string;
  readonly architecture: string;
  readonly threads: number;
  readonly instruction_set: string;
  readonly batch: number;
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
}

export interface BenchSubject {
  readonly model: string;
  readonly architecture: string;
  readonly threads: number;
  readonly instructionSet: string;
  readonly loadSeconds: number;
  readonly firstTokenSeconds: number;
  readonly weightBytes: number;
  readonly peakRssBytes: number;
}

/** The figures of a benchmark; `runs` are the measured repetitions, at least one. */
export function summarise(subject: BenchSubject, workload: Workload, runs: readonly RunTimes[]): BenchReport {
  const promptTokens = workload.batch * workload.promptLength;
  const generatedTokens = workload.batch * workload.generatedLength;
  const prefill = spread(runs.map((run) => promptTokens / run.prefillSeconds));
  const decode = spread(runs.map((run) => generatedTokens / run.decodeSeconds));
  return {
    model: subject.model,
    architecture: subject.architecture,
    threads: subject.threads,
    instruction_set: subject.instructionSet,
    batch: workload.batch,
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
  };
}

/** A table for people: what was measured, then a row per phase. */
export function benchTable(report: BenchReport): string {
  const batch = report.batch === 1 ? "" : `, ${report.batch} sequences`;
  const rows = [
    ["", "tokens/s", "min", "max"],
    speedRow(`Prefill (${report.prompt_len} tokens${batch})`, [
      report.prefill_tokens_per_s,
      report.prefill_tokens_per_s_min,
      report.prefill_tokens_per_s_max,
    ]),
    speedRow(`Decode (${report.gen_len} tokens${batch})`, [
      report.decode_tokens_per_s,
      report.decode_tokens_per_s_min,
      report.decode_tokens_per_s_max,
    ]),
  ];
  const facts = [
    ["Model", `${report.model} (${report.architecture}, ${formatBytes(report.weight_bytes)})`],
    ["Threads", `${report.threads}, ${report.instruction_set}`],
    ["Load", formatDuration(report.load_seconds)],
    ["First token", `${formatDuration(report.first_token_seconds)} after the start of the process`],
    ["Peak memory", formatBytes(report.peak_rss_bytes)],
  ];
  return `${alignColumns(facts)}\n\n${alignColumns(rows)}\n`;
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

function speedRow(title: string, speeds: readonly number[]): string[] {
  return [title, ...speeds.map((speed) => speed.toFixed(1))];
}

/** First column to the left; the others too, unless they are numbers of a table with a heading. */
function alignColumns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const numeric = rows[0]!.length > 2;
  return rows
    .map((row) =>
      row
        .map((cell, column) =>
          column > 0 && numeric ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
        )
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}
