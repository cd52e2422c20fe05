/**
 * `doctor`: whether this machine and this configuration are in order. The machine's part is what the server answers
 * under /v1/system/doctor; the configuration is examined as `serve` would read it.
 */

import type { Resolution } from "../../config/resolve.ts";
import { examine } from "../../server/admin/doctor.ts";
import { hubEnvironment } from "../hub-environment.ts";
import { heading, textTable } from "../text-table.ts";
import { formatBytes } from "../units.ts";
import { configurationChecks } from "./configuration-checks.ts";
import { machineChecks } from "./machine-checks.ts";
import type { DoctorReport } from "./report.ts";

type Check = DoctorReport["checks"][number];

/** Prints the report on stdout. The status is 0 whatever was found, unless `--strict` asks for more. */
export async function doctor({ settings }: Resolution): Promise<void> {
  const { checks: configuration, notInEffect } = configurationChecks(settings.configFile, process.env);
  const { system, checks } = await examine({ environment: hubEnvironment(settings) });
  const report: DoctorReport = {
    system,
    checks: [...checks, ...machineChecks(), ...configuration],
    not_in_effect: notInEffect,
  };
  process.stdout.write(
    settings.json ? `${JSON.stringify(report, null, 2)}\n` : doctorText(report, process.stdout.isTTY),
  );
  if (settings.strictExit && report.checks.some(({ status }) => status === "error")) process.exitCode = 1;
}

const MARKS: Readonly<Record<Check["status"], string>> = {
  ok: "[PASS] ✅",
  warn: "[WARN] ⚠️ ",
  error: "[ERROR] ❌",
};

function counted(count: number, word: string): string {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

/** The report for people. */
export function doctorText({ system, checks, not_in_effect }: DoctorReport, isTerminal: boolean): string {
  const { cpu, memory, build, devices } = system;
  const cores = cpu.physical_cores === null ? "" : `${cpu.physical_cores} cores, `;
  const environment = [
    ["System", `${system.os} ${system.kernel}, ${cpu.architecture}`],
    ["Processor", `${cpu.brand}, ${cores}${cpu.logical_cores} threads`],
    ["Memory", `${formatBytes(memory.total_bytes)}, ${formatBytes(memory.available_bytes)} free`],
    ["Cache", system.hf_cache_path],
  ];
  const accelerators = devices
    .filter(({ kind }) => kind !== "cpu")
    .map(({ kind, ordinal, name, total_memory_bytes, compute_capability }) => [
      `${kind}:${ordinal}`,
      `${name}, ${formatBytes(total_memory_bytes)}, compute capability ${compute_capability}`,
    ]);
  const builds = [
    [
      "Version",
      `${build.version}${build.git_revision === null ? "" : ` (${build.git_revision.slice(0, 10)})`}`,
    ],
    ["Bun", build.bun],
    ["Kernels", build.kernels.join(", ") || "none"],
    ["CUDA, Metal", `${build.cuda ? "yes" : "no"}, ${build.metal ? "yes" : "no"}`],
  ];
  const lines = checks.map(({ name, status, message, suggestion }) => {
    const hint = suggestion === undefined ? "" : `\n        ${suggestion}`;
    return `${MARKS[status]} ${name}: ${message}${hint}\n`;
  });
  const count = (status: Check["status"]): number => checks.filter((check) => check.status === status).length;
  const indent = { indent: "  " };
  return [
    heading("Environment Diagnosis", isTerminal),
    textTable(environment, indent),
    `\n${heading("Accelerator Check", isTerminal)}`,
    accelerators.length === 0 ? "  none: the processor computes\n" : textTable(accelerators, indent),
    `\n${heading("Build", isTerminal)}`,
    textTable(builds, indent),
    `\n${heading("System Checks", isTerminal)}`,
    ...lines,
    ...(not_in_effect.length === 0 ? [] : [`\n${heading("Set, but not in effect", isTerminal)}`]),
    textTable(
      not_in_effect.map(({ source, because }) => [source, because]),
      indent,
    ),
    `\n${heading("Summary", isTerminal)}`,
    `  ${count("ok")} passed, ${counted(count("warn"), "warning")}, ${counted(count("error"), "error")}\n`,
  ].join("");
}
