/**
 * What runs next and why. `schedule` reads the state and writes a plan; it changes nothing else and knows no
 * model, clock or channel.
 *
 * There are no phases: every sequence's `computed` chases its `length`, one token behind while it generates, a
 * prompt behind after admission or preemption. Running sequences come first, by rank and in order of admission; what
 * is left of the step's token budget goes to waiting ones, as `WaitingLine` orders them.
 *
 * A prompt takes all its blocks when it is admitted, generation takes one at a time. When none is free the last
 * running sequence, the latest admitted of the lowest rank, is preempted for an earlier one; the last itself keeps
 * its blocks and waits. So the first running sequence always progresses (it fits alone, admission saw to that), and
 * nobody starves.
 */

import type { StepLimits } from "../models/step.ts";
import { HELD_SEQUENCES_MAX, PREEMPTIONS_BEFORE_RESERVE, WATERMARK_FRACTION } from "./limits.ts";
import { clearPlan, type Plan } from "./plan.ts";
import type { Sequence } from "./sequence.ts";
import type { SequenceQueue } from "./sequence-queue.ts";
import { LineReader, type WaitingLine } from "./waiting-line.ts";

/** What the scheduler may ask about KV memory; all of it reads only. */
export interface KvView {
  readonly freeBlocks: number;
  references(block: number): number;
  blocksFor(tokens: number): number;
  matchedBlocks(sequence: Sequence): number;
  freeAmongMatched(sequence: Sequence, matched: number): number;
  isPending(sequence: Sequence, matched: number): boolean;
}

export interface SchedulerState {
  readonly limits: StepLimits;
  /** By rank, and within one in order of admission. */
  readonly running: SequenceQueue;
  readonly waiting: WaitingLine;
  /** Admissions since somebody last had the turn of those who have waited longest; see `WaitingLine`. */
  readonly turns: number;
  readonly nowMs: number;
  readonly kv: KvView;
  /** The running sequence whose adjustments have the first turn, or null. */
  readonly adjustmentTurn: Sequence | null;
}

/** What is left of the step, beyond what the plan counts itself. */
interface Room {
  freeBlocks: number;
  adjustments: number;
  /** Tokens and rows kept for running sequences that are still to be planned, one of each. */
  reserved: number;
  /** Most prompt tokens of one sequence: half the budget while others generate, so that prompts share. */
  chunkMax: number;
  /** Running sequences that must not sample in this step, for want of room for their adjustments. */
  readonly muted: ReadonlySet<Sequence>;
}

const NOBODY: ReadonlySet<Sequence> = new Set();

export function schedule(state: SchedulerState, plan: Plan): void {
  clearPlan(plan);
  plan.turns = state.turns;
  const room = measure(state, plan);
  const stalled = planRunning(state, plan, room);
  if (!stalled && plan.preempted.length === 0) planWaiting(state, plan, room);
}

/** One pass over the running sequences: who generates, and whose adjustments fit. */
function measure(state: SchedulerState, plan: Plan): Room {
  const { limits, running } = state;
  let generating = 0;
  let adjustments = 0;
  for (let sequence = running.first; sequence !== null; sequence = sequence.next) {
    if (sequence.length - sequence.computed <= 1) generating += 1;
    adjustments += sequence.adjustmentCount;
  }
  const fits = adjustments <= limits.adjustmentsMax;
  const muted = fits ? NOBODY : muteInTurn(state, plan);
  return {
    freeBlocks: state.kv.freeBlocks,
    adjustments: fits ? limits.adjustmentsMax - adjustments : 0,
    reserved: running.size,
    chunkMax: generating === 0 ? limits.tokensMax : Math.ceil(limits.tokensMax / 2),
    muted,
  };
}

/** The adjustments of all do not fit into one step: serves a part, and begins the next step with the rest. */
function muteInTurn(state: SchedulerState, plan: Plan): ReadonlySet<Sequence> {
  const { limits, running, adjustmentTurn } = state;
  const muted = new Set<Sequence>();
  let left = limits.adjustmentsMax;
  let sequence = adjustmentTurn ?? running.first;
  for (let index = 0; index < running.size; index++) {
    const count = sequence!.adjustmentCount;
    if (count > left) {
      muted.add(sequence!);
      plan.deferred ??= sequence;
    } else {
      left -= count;
    }
    sequence = sequence!.next ?? running.first;
  }
  return muted;
}

/** Returns whether a sequence had to wait for a block: then nobody may be admitted before it. */
function planRunning(state: SchedulerState, plan: Plan, room: Room): boolean {
  const { running, kv } = state;
  let last = running.last;
  let released: Map<number, number> | null = null;
  let stalled = false;
  for (let sequence = running.first; sequence !== null; sequence = sequence.next) {
    room.reserved -= 1;
    const count = chunkLength(state, plan, room, sequence, sequence.computed, !room.muted.has(sequence));
    if (count > 0) {
      const needed = kv.blocksFor(sequence.computed + count) - sequence.blockCount;
      while (needed > room.freeBlocks && last !== sequence) {
        const victim: Sequence = last!;
        released ??= new Map();
        room.freeBlocks += blocksFreedBy(kv, victim, released);
        room.reserved -= 1;
        plan.preempted.push(victim);
        last = victim.previous;
      }
      if (needed > room.freeBlocks) {
        stalled = true;
      } else {
        if (needed > 0) room.freeBlocks -= needed;
        include(plan, sequence, sequence.computed, count);
      }
    }
    if (sequence === last) break;
  }
  return stalled;
}

/** Blocks that become free with this victim, after the earlier victims noted in `released`. */
function blocksFreedBy(kv: KvView, victim: Sequence, released: Map<number, number>): number {
  let freed = 0;
  for (let index = 0; index < victim.blockCount; index++) {
    const block = victim.blocks[index]!;
    const before = released.get(block) ?? 0;
    released.set(block, before + 1);
    if (kv.references(block) === before + 1) freed += 1;
  }
  return freed;
}

function planWaiting(state: SchedulerState, plan: Plan, room: Room): void {
  const { limits, running, waiting, kv } = state;
  if (waiting.size === 0) return;
  const line = new LineReader(waiting, state.nowMs, state.turns);
  let held = 0;
  for (let sequence = line.current; sequence !== null; sequence = line.current) {
    if (running.size + plan.admitted.length >= limits.sequencesMax) return;
    if (plan.tokens >= limits.tokensMax || plan.rows >= limits.rowsMax) return;
    const matched = kv.matchedBlocks(sequence);
    if (kv.isPending(sequence, matched) || sharesUncached(state, plan, sequence, matched)) {
      // Its prefix is being computed right now: let one compute it and the others take it from the cache.
      held += 1;
      if (held > HELD_SEQUENCES_MAX) return;
      line.pass();
      continue;
    }
    const shared = kv.freeAmongMatched(sequence, matched);
    const alone = running.size + plan.admitted.length === 0;
    if (!fitsNow(state, room, sequence, matched, shared, alone)) return;
    const computed = matched * limits.blockSize;
    const adjusts = sequence.adjustmentCount <= room.adjustments;
    const count = chunkLength(state, plan, room, sequence, computed, adjusts);
    if (count === 0) return;
    room.freeBlocks -= kv.blocksFor(sequence.length) - matched + shared;
    plan.admitted.push(sequence);
    plan.admittedMatches.push(matched);
    line.admit();
    plan.turns = line.turns;
    include(plan, sequence, computed, count);
    if (plan.samples[plan.samples.length - 1] === true) room.adjustments -= sequence.adjustmentCount;
  }
}

/** Whether a sequence admitted earlier in this very plan is about to compute the next block of this one. */
function sharesUncached(state: SchedulerState, plan: Plan, sequence: Sequence, matched: number): boolean {
  const key = sequence.keys[matched];
  if (key === undefined || plan.admitted.length === 0) return false;
  if ((matched + 1) * state.limits.blockSize > sequence.matchableTokens) return false;
  return plan.admitted.some(
    (other, index) => plan.admittedMatches[index]! <= matched && other.keys[matched] === key,
  );
}

/**
 * The second admission gate: the whole of the sequence fits now, and leaves a watermark for the growth of the
 * running ones. One that was preempted again and again must fit at its longest.
 */
function fitsNow(
  state: SchedulerState,
  room: Room,
  sequence: Sequence,
  matched: number,
  shared: number,
  alone: boolean,
): boolean {
  const { kv, limits } = state;
  const reserve = sequence.preemptions >= PREEMPTIONS_BEFORE_RESERVE;
  const needed = kv.blocksFor(reserve ? sequence.lengthMax : sequence.length) - matched + shared;
  const watermark = alone ? 0 : Math.ceil((limits.blockCount - 1) * WATERMARK_FRACTION);
  return needed + watermark <= room.freeBlocks;
}

/**
 * Tokens of the sequence that this step computes from position `computed` on; 0 when it has to sit out. The last
 * token is left for another step when the row it samples from, or its adjustments, find no room.
 */
function chunkLength(
  state: SchedulerState,
  plan: Plan,
  room: Room,
  sequence: Sequence,
  computed: number,
  adjusts: boolean,
): number {
  const { tokensMax, rowsMax } = state.limits;
  const rows = rowsMax - plan.rows - room.reserved;
  const target = sequence.samples && !adjusts ? sequence.length - 1 : sequence.length;
  let count = Math.min(target - computed, room.chunkMax, tokensMax - plan.tokens - room.reserved);
  const scoreFrom = Math.max(computed, sequence.scored);
  if (scoreFrom < sequence.scoreEnd) count = Math.min(count, scoreFrom - computed + rows);
  if (count <= 0) return 0;
  const sampled = sequence.samples && computed + count === sequence.length ? 1 : 0;
  return rowsScored(sequence, computed, count) + sampled > rows ? count - 1 : count;
}

function rowsScored(sequence: Sequence, computed: number, count: number): number {
  const from = Math.max(computed, sequence.scored);
  return Math.max(0, Math.min(computed + count, sequence.scoreEnd) - from);
}

function include(plan: Plan, sequence: Sequence, start: number, count: number): void {
  const samples = sequence.samples && start + count === sequence.length;
  const scoreRows = rowsScored(sequence, start, count);
  plan.sequences.push(sequence);
  plan.starts.push(start);
  plan.counts.push(count);
  plan.scoreRows.push(scoreRows);
  plan.samples.push(samples);
  plan.tokens += count;
  plan.rows += scoreRows + (samples ? 1 : 0);
}
