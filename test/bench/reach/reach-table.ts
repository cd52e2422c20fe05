/** Measurements of many files as one Markdown table: ours, the other engine's, their ratio, our share of the bound. */

import { basename } from "node:path";
import type { Comparison, ComparisonRow, Pair } from "../../../src/cli/bench/against/comparison.ts";
import { formatBytes, formatDuration } from "../../../src/cli/units.ts";
import type { ReachResult } from "./reach-result.ts";

const NOT_MEASURED = "-";

/** Rows in the order given; a depth or a number of sequences that any of them has is a column of all. */
export function reachTable(results: readonly ReachResult[]): string {
  const rows = results.flatMap(({ parts }) => parts.calm?.rows ?? []);
  const prompts = distinct(rows.flatMap(({ phase, tokens }) => (phase === "prefill" ? [tokens] : [])));
  const many = distinct(rows.flatMap(({ sequences }) => (sequences > 1 ? [sequences] : [])));
  const depths = distinct(rows.flatMap(({ depth }) => (depth > 0 ? [depth] : [])));
  const withDisturbed = results.some(({ parts }) => parts.disturbed !== undefined);
  const head = [
    ...["file", "threads", "activations", "against", "decode"],
    ...depths.map((depth) => `decode behind ${depth}`),
    ...many.map((sequences) => `${sequences} sequences`),
    ...prompts.map((tokens) => `prompt of ${tokens}`),
    ...(withDisturbed ? ["beside a busy process"] : []),
    ...["start to first token", "load", "peak memory"],
  ];
  const lines = results.map((result) => {
    const { calm, disturbed } = result.parts;
    const find = (is: (row: ComparisonRow) => boolean): string => speedCell(calm?.rows.find(is));
    const decode = (depth: number, sequences: number): string =>
      find((row) => row.phase === "decode" && row.depth === depth && row.sequences === sequences);
    return [
      ...[
        basename(result.file, ".gguf"),
        String(result.threads),
        result.activations,
        peerName(result),
        decode(0, 1),
      ],
      ...depths.map((depth) => decode(depth, 1)),
      ...many.map((sequences) => decode(0, sequences)),
      ...prompts.map((tokens) => find((row) => row.phase === "prefill" && row.tokens === tokens)),
      ...(withDisturbed ? [keptCell(calm, disturbed)] : []),
      ...[pairCell(calm?.first_token_seconds, formatDuration), pairCell(calm?.load_seconds, formatDuration)],
      pairCell(calm?.peak_rss_bytes, formatBytes),
    ];
  });
  const rule = head.map((_, column) => (column === 0 || column === 2 || column === 3 ? "---" : "---:"));
  const table = [head, rule, ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
  return `${table}\n\n${legend(results, withDisturbed)}\n`;
}

function peerName({ against, parts }: ReachResult): string {
  const comparison = parts.calm ?? parts.disturbed;
  return comparison === undefined ? against : `${comparison.peer.name} ${release(comparison)}`;
}

function release({ peer }: Comparison): string {
  return /\d+(\.\d+)+/.exec(peer.release)?.[0] ?? peer.release;
}

/** `60.1 / 30.0, 2.00x, 81%` */
function speedCell(row: ComparisonRow | undefined): string {
  if (row === undefined) return NOT_MEASURED;
  const { tokens_per_s: own, peer_tokens_per_s: peer } = row;
  const share = `${(row.share_of_bound * 100).toFixed(0)}%`;
  return `${digits(own.median)} / ${digits(peer.median)}, ${row.ratio.toFixed(2)}x, ${share}`;
}

/** What each side keeps of the speed of one sequence, beside a process that takes a processor. */
function keptCell(calm: Comparison | undefined, disturbed: Comparison | undefined): string {
  const first = calm === undefined ? undefined : single(calm);
  const second = disturbed === undefined ? undefined : single(disturbed);
  if (first === undefined || second === undefined) return NOT_MEASURED;
  const kept = (after: number, before: number): string => `${((after / before) * 100).toFixed(0)}%`;
  const own = kept(second.tokens_per_s.median, first.tokens_per_s.median);
  return `${own} / ${kept(second.peer_tokens_per_s.median, first.peer_tokens_per_s.median)}`;
}

function single({ rows }: Comparison): ComparisonRow | undefined {
  return rows.find(({ phase, depth, sequences }) => phase === "decode" && depth === 0 && sequences === 1);
}

function pairCell(pair: Pair | undefined, format: (value: number) => string): string {
  return pair === undefined ? NOT_MEASURED : `${format(pair.own)} / ${format(pair.peer)}`;
}

function digits(speed: number): string {
  return speed.toFixed(speed < 100 ? 1 : 0);
}

function distinct(values: readonly number[]): readonly number[] {
  return [...new Set(values)].sort((a, b) => a - b);
}

/** How each engine does its work; what differs from file to file in it is left out. */
function manners(comparisons: readonly Comparison[]): readonly string[] {
  const sentences = comparisons.map(
    ({ peer, kv_cache_type }) =>
      `${peer.name}: ${peer.manner.replace(/, [\d.]+ [kMGT]?B\b/, "")}; our KV cache ${kv_cache_type}.`,
  );
  return [...new Set(sentences)];
}

function legend(results: readonly ReachResult[], withDisturbed: boolean): string {
  const comparisons = results.flatMap(({ parts }) => Object.values(parts));
  const disturbed = comparisons.reduce((sum, { disturbed_rounds }) => sum + disturbed_rounds, 0);
  const rounds = comparisons.reduce((sum, comparison) => sum + comparison.rounds, 0);
  const sets = [...new Set(comparisons.map(({ instruction_set }) => instruction_set))].join(", ");
  const reads = comparisons.map(({ limits }) => limits.read_bytes_per_second / 1e9);
  const dates = results.map(({ date }) => date.slice(0, 10)).sort();
  const sentences = [
    "tokens/s of all sequences together, ours / theirs, medians of turns; their ratio; our share of what reading the weights, keys and values, or multiplying, allows.",
    ...manners(comparisons),
    ...(withDisturbed ? ["Beside a busy process: what each side keeps of its speed of one sequence."] : []),
    ...(comparisons.length === 0
      ? []
      : [
          `${dates[0] === dates.at(-1) ? dates[0] : `${dates[0]} to ${dates.at(-1)}`}, ${sets}, ${Math.min(...reads).toFixed(1)} to ${Math.max(...reads).toFixed(1)} GB/s read.`,
        ]),
    ...(disturbed === 0 ? [] : [`Other programs used the processors in ${disturbed} of ${rounds} rounds.`]),
  ];
  return sentences.join(" ");
}
