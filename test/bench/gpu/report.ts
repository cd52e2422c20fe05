/** From measured times to figures, and to tables for people. */

import { textTable } from "../../../src/cli/text-table.ts";
import type { Floors } from "./floors.ts";
import type { DecodeTime, ModelTimes, PrefillTime } from "./measure-model.ts";
import { decodeBytes, prefillOperations, type Shape, type WeightType } from "./shapes.ts";

export interface TorchTimes {
  readonly torch: string;
  readonly decode: readonly DecodeTime[];
  readonly prefill: readonly PrefillTime[];
}

export type Checked = { readonly passed: number; readonly failed: number } | { readonly skipped: string };

export interface GpuReport {
  readonly date: string;
  readonly revision: string;
  readonly machine: Readonly<Record<string, string>>;
  readonly shape: string;
  /** The kernels ran on the processor: nothing here says how fast anything is. */
  readonly emulated: boolean;
  readonly conformance: Checked;
  readonly models: Checked;
  readonly realModel: Checked;
  /** With --sanitize: by tool. Status 9 is that it found something, 127 that it is not there. */
  readonly sanitizers?: Readonly<Record<string, { readonly status: number; readonly says: string }>>;
  readonly floors: Floors | { readonly skipped: string };
  readonly weights: Partial<Record<WeightType, ModelTimes | { readonly failed: string }>>;
  readonly torch: TorchTimes | { readonly skipped: string };
}

/** Everything, as text. */
export function formatReport(report: GpuReport, shape: Shape): string {
  const { floors, torch } = report;
  const facts = [
    ...Object.entries(report.machine),
    ["conformance", describe(report.conformance)],
    ["tiny models", describe(report.models)],
    ["real model", describe(report.realModel)],
    ...Object.entries(report.sanitizers ?? {}).map(([tool, { status }]) => [tool, `status ${status}`]),
    [
      "floors",
      "skipped" in floors
        ? floors.skipped
        : `copy ${(floors.bytesPerSecond / 1e9).toFixed(0)} GB/s, bf16 ${
            floors.operationsPerSecond === null
              ? "not measured (no cuBLAS that works)"
              : `${(floors.operationsPerSecond / 1e12).toFixed(0)} Tflop/s`
          }`,
    ],
    ["PyTorch", "skipped" in torch ? torch.skipped : torch.torch],
  ];
  const known = "skipped" in floors ? undefined : floors;
  const peer = "skipped" in torch ? undefined : torch;
  const rows: string[][] = [
    ["weights", "case", "ms", "tokens/s", "of the floor", "launched, ms", "PyTorch bf16, ms"],
  ];
  for (const [type, times] of Object.entries(report.weights) as [
    WeightType,
    ModelTimes | { failed: string },
  ][]) {
    if ("failed" in times) {
      rows.push([type, times.failed]);
      continue;
    }
    rows.push([type, `${times.activations}, ${times.device}`]);
    for (const one of times.decode) rows.push(decodeRow(shape, type, one, known, peer));
    for (const one of times.prefill) rows.push(prefillRow(shape, type, one, known, peer));
    rows.push([type, "empty step", milliseconds(times.emptyStepSeconds)]);
  }
  return `${textTable(facts)}\n${textTable(rows, { alignRight: [2, 3, 4, 5, 6] })}`;
}

function describe(checked: Checked): string {
  if ("skipped" in checked) return `skipped: ${checked.skipped}`;
  return `${checked.passed} passed, ${checked.failed} failed`;
}

function decodeRow(
  shape: Shape,
  type: WeightType,
  one: DecodeTime,
  floors?: Floors,
  peer?: TorchTimes,
): string[] {
  const { batch, context, seconds, launchedSeconds, reason = "" } = one;
  const name = `decode, batch ${batch}, context ${context}`;
  if (seconds === undefined) return [type, name, reason];
  const floor =
    floors === undefined ? undefined : decodeBytes(shape, type, batch, context) / floors.bytesPerSecond;
  const theirs = peer?.decode.find((other) => other.batch === batch && other.context === context)?.seconds;
  return [
    type,
    name,
    milliseconds(seconds),
    (batch / seconds).toFixed(0),
    floor === undefined ? "" : percent(floor / seconds),
    milliseconds(launchedSeconds),
    milliseconds(theirs),
  ];
}

function prefillRow(
  shape: Shape,
  type: WeightType,
  one: PrefillTime,
  floors?: Floors,
  peer?: TorchTimes,
): string[] {
  const { tokens, seconds, reason = "" } = one;
  const name = `prefill, ${tokens} tokens`;
  if (seconds === undefined) return [type, name, reason];
  const rate = floors?.operationsPerSecond ?? null;
  const theirs = peer?.prefill.find((other) => other.tokens === tokens)?.seconds;
  return [
    type,
    name,
    milliseconds(seconds),
    (tokens / seconds).toFixed(0),
    rate === null ? "" : percent(prefillOperations(shape, tokens) / rate / seconds),
    "",
    milliseconds(theirs),
  ];
}

function milliseconds(seconds: number | undefined): string {
  return seconds === undefined ? "" : (seconds * 1000).toFixed(3);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(0)} %`;
}
