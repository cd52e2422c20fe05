/** What one step does: the scheduler's whole answer, reused from step to step. */

import type { Sequence } from "./sequence.ts";

export interface Plan {
  /** Lose their blocks and go back to the head of the waiting ones; latest admitted first. */
  readonly preempted: Sequence[];
  /** Become running, in this order ... */
  readonly admitted: Sequence[];
  /** ... with this many blocks each from the prefix cache. */
  readonly admittedMatches: number[];
  /** Sequences of the batch, in batch order. The following arrays run parallel to it. */
  readonly sequences: Sequence[];
  /** First token to compute, and how many. */
  readonly starts: number[];
  readonly counts: number[];
  /** Rows that score or embed prompt tokens; they come before the sampled row. */
  readonly scoreRows: number[];
  /** Whether the chunk reaches the last token, so that the next one is drawn from its logits. */
  readonly samples: boolean[];
  /** Totals of the batch. */
  tokens: number;
  rows: number;
  /** First running sequence whose adjustments did not fit; it has the first turn in the next step. */
  deferred: Sequence | null;
  /** Admissions since somebody last had the turn of those who have waited longest; see `WaitingLine`. */
  turns: number;
}

export function createPlan(): Plan {
  return {
    preempted: [],
    admitted: [],
    admittedMatches: [],
    sequences: [],
    starts: [],
    counts: [],
    scoreRows: [],
    samples: [],
    tokens: 0,
    rows: 0,
    deferred: null,
    turns: 0,
  };
}

export function clearPlan(plan: Plan): void {
  plan.preempted.length = 0;
  plan.admitted.length = 0;
  plan.admittedMatches.length = 0;
  plan.sequences.length = 0;
  plan.starts.length = 0;
  plan.counts.length = 0;
  plan.scoreRows.length = 0;
  plan.samples.length = 0;
  plan.tokens = 0;
  plan.rows = 0;
  plan.deferred = null;
}

/**
 * The batch of a step in a line: the lengths that its sequences have then, of those whose prompt is computed and of
 * those that get a further token, and the time it took.
 */
export function describeStep({ sequences, starts, counts }: Plan, milliseconds: number): string {
  const prompts: number[] = [];
  const completions: number[] = [];
  sequences.forEach(({ promptLength }, index) => {
    const start = starts[index]!;
    (start < promptLength ? prompts : completions).push(start + counts[index]!);
  });
  const lengths = (list: readonly number[]): string => `[${list.join(", ")}]`;
  return `step: prompts ${lengths(prompts)}, completions ${lengths(completions)}, ${milliseconds.toFixed(1)} ms`;
}
