/** What `tune` finds out, in the words of mistral.rs: its schema, its table for people, its configuration file. */

import { type Static, Type } from "@sinclair/typebox";
import { heading } from "../text-table.ts";
import { formatBytes, formatCount } from "../units.ts";

const nullable = <Schema extends Parameters<typeof Type.Union>[0][number]>(schema: Schema) =>
  Type.Union([schema, Type.Null()]);

export const QUALITIES = ["baseline", "near-lossless", "good", "acceptable", "degraded"] as const;
export type Quality = (typeof QUALITIES)[number];

export const TuneCandidate = Type.Object(
  {
    /** As `--isq` names it; null for the model as it is stored. */
    isq: nullable(Type.String()),
    isq_name: Type.String(),
    /** Files that are there, or a size worked out from the shapes of the tensors. */
    stored: Type.Boolean(),
    estimated_size_bytes: Type.Integer({ minimum: 0 }),
    vram_usage_percent: Type.Number({ minimum: 0 }),
    max_context_tokens: Type.Integer({ minimum: 0 }),
    context_is_model_max: Type.Boolean(),
    quality: Type.Union(QUALITIES.map((quality) => Type.Literal(quality))),
    fit_status: Type.Union([Type.Literal("fits"), Type.Literal("hybrid"), Type.Literal("too-large")]),
    recommended: Type.Boolean(),
  },
  { additionalProperties: false },
);
export type TuneCandidate = Static<typeof TuneCandidate>;

/** What `tune --json` prints. */
export const TuneReport = Type.Object(
  {
    model_id: Type.String(),
    profile: Type.Union([Type.Literal("quality"), Type.Literal("balanced"), Type.Literal("fast")]),
    backend: Type.String(),
    total_vram_bytes: Type.Integer({ minimum: 0 }),
    /** Of it, what a model may take now. */
    budget_bytes: Type.Integer({ minimum: 0 }),
    candidates: Type.Array(TuneCandidate, { minItems: 1 }),
    recommended_isq: nullable(Type.String()),
    recommended_command: nullable(Type.String()),
    device_layers: nullable(Type.Array(Type.String())),
    device_layers_cli: nullable(Type.String()),
    paged_attn_mode: Type.String(),
    warnings: Type.Array(Type.String()),
    notes: Type.Array(Type.String()),
  },
  { additionalProperties: false },
);
export type TuneReport = Static<typeof TuneReport>;

const QUALITY_WORDS: Readonly<Record<Quality, string>> = {
  baseline: "Baseline",
  "near-lossless": "Near-lossless",
  good: "Good",
  acceptable: "Acceptable",
  degraded: "Degraded",
};

/** The report for people. */
export function tuneTable(report: TuneReport, isTerminal: boolean): string {
  const facts = [
    `Model: ${report.model_id}`,
    `Profile: ${report.profile}`,
    `Backend: ${report.backend}`,
    `Total VRAM: ${formatBytes(report.total_vram_bytes)}, of which a model may take ${formatBytes(report.budget_bytes)} now`,
  ];
  const rows = report.candidates.map((candidate) => [
    `${candidate.isq_name}${candidate.stored ? " (stored)" : ""}`,
    formatBytes(candidate.estimated_size_bytes),
    `${candidate.vram_usage_percent.toFixed(candidate.vram_usage_percent < 10 ? 1 : 0)}%`,
    contextRoom(candidate),
    QUALITY_WORDS[candidate.quality],
    statusWord(candidate),
  ]);
  const head = ["Quant", "Est. Size", "VRAM %", "Context Room", "Quality", "Status"];
  const command = report.recommended_command;
  return [
    heading("Tuning Analysis", isTerminal, "="),
    `${facts.join("\n")}\n\n`,
    heading("Quantization Options", isTerminal),
    boxTable([head, ...rows]),
    ...report.warnings.map((warning) => `[WARN] ${warning}\n`),
    command === null ? "" : `\n${heading("Recommended Command", isTerminal)}  ${command}\n`,
    "\n",
    `[INFO] PagedAttention is available (mode: ${report.paged_attn_mode})\n`,
    ...report.notes.map((note) => `[INFO] ${note}\n`),
  ].join("");
}

/** `48k`, or `128k (max)` when the model itself takes no more. */
function contextRoom({ max_context_tokens: tokens, context_is_model_max: isMax }: TuneCandidate): string {
  const shown = tokens >= 1024 ? `${Math.floor(tokens / 1024)}k` : formatCount(tokens);
  return isMax ? `${shown} (max)` : shown;
}

function statusWord({ recommended, fit_status: status }: TuneCandidate): string {
  if (recommended) return "🚀 Recommended";
  return { fits: "✅ Fits", hybrid: "⚠️ Hybrid", "too-large": "❌ Too Large" }[status];
}

function boxTable(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => Bun.stringWidth(row[column]!))));
  const rule = (left: string, middle: string, right: string): string =>
    `${left}${widths.map((width) => "─".repeat(width + 2)).join(middle)}${right}\n`;
  const line = (row: readonly string[]): string => {
    const cells = row.map(
      (cell, column) => ` ${cell}${" ".repeat(widths[column]! - Bun.stringWidth(cell))} `,
    );
    return `│${cells.join("│")}│\n`;
  };
  const [head, ...body] = rows;
  return `${rule("┌", "┬", "┐")}${line(head!)}${rule("├", "┼", "┤")}${body.map(line).join("")}${rule("└", "┴", "┘")}`;
}
