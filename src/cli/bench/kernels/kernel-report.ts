/** From the times of a kernel to its figures and to what the machine's limits make of them, as JSON or as a table. */

import type { DeviceInfo } from "../../../backend/device-info.ts";
import type { ActivationPrecision } from "../../../graph/builder.ts";
import { textTable } from "../../text-table.ts";
import { formatBytes } from "../../units.ts";
import type { Arithmetic, MachineLimits } from "../machine-limits.ts";
import type { KernelCase, Source } from "./kernel-case.ts";

/** Whether weights were multiplied where they lie in their file or in a copy that is re-laid for speed. */
export type Layout = "in place" | "re-laid";

/** A row of `bench-kernels --json`. */
export interface KernelRow {
  readonly op: string;
  readonly dtype: string;
  readonly shape: string;
  /** Absent where there are no weights to re-lay. */
  readonly layout?: Layout;
  readonly tokens: number;
  readonly source: Source;
  readonly runs: number;
  /** Of one op, medians. */
  readonly seconds: number;
  readonly seconds_min: number;
  /** Bytes that must be moved at least, per second; weights count as they are stored in a file. */
  readonly bytes_per_second: number;
  readonly ops_per_second: number;
  /** What would hold it up if nothing else did. */
  readonly bound: "read" | Arithmetic;
  /** The time that the bound allows, as a share of the time it takes. */
  readonly share_of_bound: number;
}

/** The machine's limits in `bench-kernels --json`; per second. */
export interface MachineReport {
  readonly threads: number;
  readonly instruction_set: string;
  readonly activations: ActivationPrecision;
  readonly cache_bytes: number;
  /** Size of what is read from memory. */
  readonly memory_bytes: number;
  readonly read_bytes_per_second: number;
  readonly f32_ops_per_second: number;
  readonly bf16_tile_ops_per_second?: number;
  readonly int8_dot_ops_per_second: number;
  readonly int8_tile_ops_per_second?: number;
}

export function machineReport(
  { threads, instructionSet }: DeviceInfo,
  activations: ActivationPrecision,
  limits: MachineLimits,
  cacheBytes: number,
  memoryBytes: number,
): MachineReport {
  const tile = limits.int8TileOpsPerSecond;
  const bf16Tile = limits.bf16TileOpsPerSecond;
  return {
    threads,
    instruction_set: instructionSet,
    activations,
    cache_bytes: cacheBytes,
    memory_bytes: memoryBytes,
    read_bytes_per_second: Math.round(limits.readBytesPerSecond(memoryBytes)),
    f32_ops_per_second: Math.round(limits.f32OpsPerSecond),
    ...(bf16Tile === undefined ? {} : { bf16_tile_ops_per_second: Math.round(bf16Tile) }),
    int8_dot_ops_per_second: Math.round(limits.int8DotOpsPerSecond),
    ...(tile === undefined ? {} : { int8_tile_ops_per_second: Math.round(tile) }),
  };
}

export interface MeasuredCase {
  readonly kernelCase: KernelCase;
  readonly layout: Layout | undefined;
  readonly source: Source;
  readonly tokens: number;
  /** Seconds of one op, of every run. */
  readonly times: readonly number[];
}

export function kernelRow(
  { kernelCase, layout, source, tokens, times }: MeasuredCase,
  limits: Pick<MachineLimits, "readBytesPerSecond" | "opsPerSecond">,
  memoryBytes: number,
): KernelRow {
  const sorted = [...times].sort((a, b) => a - b);
  const seconds =
    (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
  const bytes = kernelCase.bytes(tokens);
  const operations = kernelCase.operations(tokens);
  const readSeconds = bytes / limits.readBytesPerSecond(source === "memory" ? memoryBytes : bytes);
  const computeSeconds = operations / limits.opsPerSecond(kernelCase.arithmetic);
  return {
    op: kernelCase.op,
    dtype: kernelCase.dtype,
    shape: kernelCase.shape,
    ...(layout === undefined ? {} : { layout }),
    tokens,
    source,
    runs: times.length,
    seconds: significant(seconds),
    seconds_min: significant(sorted[0]!),
    bytes_per_second: Math.round(bytes / seconds),
    ops_per_second: Math.round(operations / seconds),
    bound: readSeconds > computeSeconds ? "read" : kernelCase.arithmetic,
    share_of_bound: significant(Math.max(readSeconds, computeSeconds) / seconds),
  };
}

function significant(value: number): number {
  return Number(value.toPrecision(4));
}

/** A table for people: the limits, then a row per case and number of tokens. */
export function kernelTable(machine: MachineReport, rows: readonly KernelRow[]): string {
  const { bf16_tile_ops_per_second: bf16Tile, int8_tile_ops_per_second: tile } = machine;
  const facts = [
    ["Threads", `${machine.threads}, ${machine.instruction_set}, activations ${machine.activations}`],
    [
      "Read",
      `${giga(machine.read_bytes_per_second)} GB/s from ${formatBytes(machine.memory_bytes)} of memory; caches of ${formatBytes(machine.cache_bytes)}`,
    ],
    ["f32", `${giga(machine.f32_ops_per_second)} Gop/s`],
    ...(bf16Tile === undefined ? [] : [["bf16", `${giga(bf16Tile)} Gop/s in the tile unit`] as const]),
    [
      "int8",
      `${giga(machine.int8_dot_ops_per_second)} Gop/s${tile === undefined ? "" : `, ${giga(tile)} Gop/s in the tile unit`}`,
    ],
  ];
  const head = ["op", "type", "shape", "layout", "tokens", "from", "time", "GB/s", "Gop/s", "bound", ""];
  const cells = rows.map((row) => [
    row.op,
    row.dtype,
    row.shape,
    row.layout ?? "",
    String(row.tokens),
    row.source,
    microseconds(row.seconds),
    giga(row.bytes_per_second),
    giga(row.ops_per_second),
    row.bound,
    `${(row.share_of_bound * 100).toFixed(0)}%`,
  ]);
  return `${textTable(facts)}\n${textTable([head, ...cells], { alignRight: [4, 6, 7, 8, 10] })}`;
}

function giga(perSecond: number): string {
  const value = perSecond / 1e9;
  return value.toFixed(value < 9.95 ? 2 : value < 99.5 ? 1 : 0);
}

function microseconds(seconds: number): string {
  const value = seconds * 1e6;
  return `${value.toFixed(value < 9.95 ? 2 : value < 999.5 ? 1 : 0)} us`;
}
