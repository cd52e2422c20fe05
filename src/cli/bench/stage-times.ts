/** Where the time of prefill and decode steps goes: one more run of a workload, its stages measured and summed up. */

import type { LoadedModel, ProfiledStage } from "../../models/loaded-model.ts";
import { textTable } from "../text-table.ts";
import { runWorkload, type Workload } from "./workload.ts";

/** The stages of all layers that do the same, together; seconds are of all steps of the phase. */
export interface StageRow {
  readonly what: string;
  readonly stages: number;
  readonly work_seconds: number;
  /** The first thread's wait for the others. */
  readonly wait_seconds: number;
}

export interface PhaseStages {
  readonly phase: "prefill" | "decode";
  readonly steps: number;
  readonly rows: readonly StageRow[];
}

/** Runs the workload once, with its stages measured. */
export function measureStages(model: LoadedModel, workload: Workload): PhaseStages[] {
  const phases: PhaseStages[] = [];
  const finish = (phase: PhaseStages["phase"]): void => {
    phases.push(summariseStages(phase, model.profile()));
  };
  runWorkload(model, workload, () => performance.now(), {
    beforePrefill: () => model.startProfile(),
    beforeDecode: () => {
      finish("prefill");
      model.startProfile();
    },
  });
  finish("decode");
  return phases;
}

/** Stages of the same name as one row, the longest first. */
export function summariseStages(phase: PhaseStages["phase"], stages: readonly ProfiledStage[]): PhaseStages {
  const rows = new Map<string, StageRow>();
  for (const stage of stages) {
    const what = nameOf(stage);
    const known = rows.get(what) ?? { what, stages: 0, work_seconds: 0, wait_seconds: 0 };
    rows.set(what, {
      what,
      stages: known.stages + 1,
      work_seconds: known.work_seconds + stage.workSeconds,
      wait_seconds: known.wait_seconds + stage.waitSeconds,
    });
  }
  const total = ({ work_seconds, wait_seconds }: StageRow): number => work_seconds + wait_seconds;
  return {
    phase,
    steps: Math.max(0, ...stages.map(({ runs }) => runs)),
    rows: [...rows.values()].sort((a, b) => total(b) - total(a)),
  };
}

/** The ops of a stage and what they make; the number of the layer is left out. */
function nameOf({ kind, ops }: ProfiledStage): string {
  const made = (op: ProfiledStage["ops"][number]): string =>
    `${op.name} ${(op.operands[0]?.name ?? "").replace(/^layers\.\d+\./, "")}`;
  if (kind === "combine") return ops.map((op) => `${made(op)}, end`).join();
  if (kind === "units") return ops.map(made).join();
  return ops.map((op) => (op.name === "matmul" ? "quantise" : op.name)).join(" + ");
}

export function stageTable({ phase, steps, rows }: PhaseStages): string {
  const seconds = rows.reduce((sum, { work_seconds, wait_seconds }) => sum + work_seconds + wait_seconds, 0);
  const perStep = (value: number): string => ((value / Math.max(1, steps)) * 1e3).toFixed(3);
  const cells = rows.map(({ what, stages, work_seconds, wait_seconds }) => [
    what,
    String(stages),
    perStep(work_seconds),
    perStep(wait_seconds),
    `${(((work_seconds + wait_seconds) / seconds) * 100).toFixed(1)}%`,
  ]);
  const head = [`${phase}, ${steps} step${steps === 1 ? "" : "s"}`, "stages", "ms a step", "waiting", ""];
  return textTable([head, ...cells], { alignRight: [1, 2, 3, 4] });
}
