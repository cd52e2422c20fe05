/** What `bench --against` found, as JSON and as a table. */

import type { ActivationPrecision } from "../../../graph/builder.ts";
import { textTable } from "../../text-table.ts";
import { formatBytes, formatDuration } from "../../units.ts";
import type { Bound } from "./step-bounds.ts";
import { type Contest, median } from "./turns.ts";

/** Tokens per second of all sequences together, over the repetitions. */
export interface Speed {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface ComparisonRow {
  readonly phase: "prefill" | "decode";
  /** Of the prompt, or steps of each sequence. */
  readonly tokens: number;
  /** Tokens of context before them. */
  readonly depth: number;
  readonly sequences: number;
  readonly tokens_per_s: Speed;
  readonly peer_tokens_per_s: Speed;
  /** The better one of the peer's two ways, where it has two. */
  readonly peer_flash_attention?: boolean;
  readonly ratio: number;
  /** What the machine's limits allow, and which of them. */
  readonly bound_tokens_per_s: number;
  readonly bound_by: Bound["by"];
  readonly share_of_bound: number;
  readonly peer_share_of_bound: number;
}

/** A figure of both sides, medians. */
export interface Pair {
  readonly own: number;
  readonly peer: number;
}

/** What `bench --against ... --json` prints. */
export interface Comparison {
  readonly model: string;
  readonly architecture: string;
  readonly weight_bytes: number;
  readonly threads: number;
  readonly instruction_set: string;
  readonly kv_cache_type: string;
  readonly activations: ActivationPrecision;
  readonly repetitions: number;
  readonly peer: {
    readonly name: string;
    readonly release: string;
    readonly package: string;
    /** How it does the work. */
    readonly manner: string;
  };
  readonly limits: {
    readonly read_bytes_per_second: number;
    readonly f32_ops_per_second: number;
    readonly int8_dot_ops_per_second: number;
    /** Of the tile unit, where there is one: then it is what bounds arithmetic of int8. */
    readonly int8_tile_ops_per_second?: number;
  };
  readonly rows: readonly ComparisonRow[];
  /** From the start of a process to its first token. This and what follows: where whole processes were compared. */
  readonly first_token_seconds?: Pair;
  readonly load_seconds?: Pair;
  readonly peak_rss_bytes?: Pair;
  /** Rounds in which other programs used the processors, among all rounds; they were repeated if that helped. */
  readonly disturbed_rounds: number;
  readonly rounds: number;
}

export interface Cell {
  readonly phase: "prefill" | "decode";
  readonly tokens: number;
  readonly depth: number;
  readonly sequences: number;
}

/** The figures of a cell. */
export function comparisonRow(cell: Cell, result: Contest, bound: Bound): ComparisonRow {
  const tokens = cell.tokens * cell.sequences;
  const own = speedOf(tokens, result.own);
  const peer = speedOf(tokens, result.peer);
  return {
    ...cell,
    tokens_per_s: own,
    peer_tokens_per_s: peer,
    ...(result.way === undefined ? {} : { peer_flash_attention: result.way }),
    ratio: round(own.median / peer.median, 3),
    bound_tokens_per_s: round(bound.tokensPerSecond, 2),
    bound_by: bound.by,
    share_of_bound: round(own.median / bound.tokensPerSecond, 4),
    peer_share_of_bound: round(peer.median / bound.tokensPerSecond, 4),
  };
}

function speedOf(tokens: number, seconds: readonly number[]): Speed {
  return {
    median: round(tokens / median(seconds), 2),
    min: round(tokens / Math.max(...seconds), 2),
    max: round(tokens / Math.min(...seconds), 2),
  };
}

function round(value: number, digits: number): number {
  return Number(value.toFixed(digits));
}

export function pairOf(own: readonly number[], peer: readonly number[], digits = 4): Pair {
  return { own: round(median(own), digits), peer: round(median(peer), digits) };
}

/** Facts, a row per piece of work, and what only whole processes tell. */
export function comparisonTable(comparison: Comparison): string {
  const { limits, peer, rows } = comparison;
  const giga = (value: number): string => (value / 1e9).toFixed(value < 9.95e10 ? 1 : 0);
  const { int8_tile_ops_per_second: tile } = limits;
  const tiles = tile === undefined ? "" : ` (${giga(tile)} in the tile unit)`;
  const facts = [
    ["Model", `${comparison.model} (${comparison.architecture}, ${formatBytes(comparison.weight_bytes)})`],
    [
      "Threads",
      `${comparison.threads}, ${comparison.instruction_set}, KV cache ${comparison.kv_cache_type}, activations ${comparison.activations}`,
    ],
    [peer.name, `${peer.release} (${peer.package}), ${peer.manner}`],
    [
      "Limits",
      `${giga(limits.read_bytes_per_second)} GB/s read at the size of the weights, ${giga(limits.f32_ops_per_second)} Gop/s f32, ${giga(limits.int8_dot_ops_per_second)} Gop/s int8${tiles}`,
    ],
  ];
  const hasWays = rows.some(({ peer_flash_attention: flash }) => flash !== undefined);
  const ways = (text: string): string[] => (hasWays ? [text] : []);
  const head = ["", "tokens/s", peer.name, ...ways("flash"), "ratio", "bound", "by", "reached", peer.name];
  const speeds = rows.map((row) => [
    nameOf(row),
    row.tokens_per_s.median.toFixed(1),
    row.peer_tokens_per_s.median.toFixed(1),
    ...ways(row.peer_flash_attention === true ? "on" : "off"),
    `${row.ratio.toFixed(2)}x`,
    row.bound_tokens_per_s.toFixed(0),
    row.bound_by,
    percent(row.share_of_bound),
    percent(row.peer_share_of_bound),
  ]);
  const { disturbed_rounds: disturbed, rounds } = comparison;
  const note =
    disturbed === 0
      ? ""
      : `\nOther programs used the processors in ${disturbed} of ${rounds} rounds, which count only where there were no others.\n`;
  return [
    textTable(facts),
    textTable([head, ...speeds], { alignRight: hasWays ? [1, 2, 4, 5, 7, 8] : [1, 2, 3, 4, 6, 7] }),
    `${processTable(comparison)}${note}`,
  ].join("\n");
}

function processTable({
  peer,
  first_token_seconds: first,
  load_seconds: load,
  peak_rss_bytes: peak,
}: Comparison): string {
  if (first === undefined || load === undefined || peak === undefined) return "";
  const seconds = ({ own, peer: other }: Pair): string[] => [
    formatDuration(own),
    formatDuration(other),
    `${(other / own).toFixed(2)}x`,
  ];
  const rows = [
    ["", "mistral.ts", peer.name, "ratio"],
    ["Start to first token", ...seconds(first)],
    ["Load", ...seconds(load)],
    ["Peak memory", formatBytes(peak.own), formatBytes(peak.peer), `${(peak.peer / peak.own).toFixed(2)}x`],
  ];
  return textTable(rows, { alignRight: [1, 2, 3] });
}

function nameOf({ phase, tokens, depth, sequences }: ComparisonRow): string {
  if (phase === "prefill") return `Prefill (${tokens} tokens)`;
  const many = sequences === 1 ? "" : `, ${sequences} sequences`;
  return `Decode (${tokens} tokens${depth === 0 ? "" : ` @ d${depth}`}${many})`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)}%`;
}
