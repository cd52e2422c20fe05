/** `schedule` alone: plain sequences and a KV memory that is only numbers. */

import { expect, test } from "bun:test";
import type { Priority } from "../../src/engine/messages.ts";
import { createPlan, type Plan } from "../../src/engine/plan.ts";
import { type KvView, type SchedulerState, schedule } from "../../src/engine/scheduler.ts";
import { Sequence } from "../../src/engine/sequence.ts";
import { SequenceQueue } from "../../src/engine/sequence-queue.ts";
import { WaitingLine } from "../../src/engine/waiting-line.ts";
import type { StepLimits } from "../../src/models/step.ts";
import { FAKE_LIMITS } from "./fake-runner.ts";
import { GREEDY, promptOf, request } from "./requests.ts";

const BLOCK_SIZE = 4;

interface Setting {
  readonly limits?: Partial<StepLimits>;
  readonly running?: readonly Sequence[];
  readonly waiting?: readonly Sequence[];
  readonly freeBlocks?: number;
  /** References of blocks that more than one sequence has. */
  readonly shared?: ReadonlyMap<number, number>;
  readonly kv?: Partial<KvView>;
  readonly adjustmentTurn?: Sequence;
  readonly turns?: number;
  readonly nowMs?: number;
}

function state(setting: Setting): SchedulerState {
  const running = new SequenceQueue();
  const waiting = new WaitingLine();
  for (const sequence of setting.running ?? []) running.insertByRank(sequence);
  for (const sequence of setting.waiting ?? []) waiting.pushBack(sequence);
  return {
    limits: { ...FAKE_LIMITS, ...setting.limits },
    running,
    waiting,
    turns: setting.turns ?? 0,
    nowMs: setting.nowMs ?? 0,
    adjustmentTurn: setting.adjustmentTurn ?? null,
    kv: {
      freeBlocks: setting.freeBlocks ?? 100,
      references: (block) => setting.shared?.get(block) ?? 1,
      blocksFor: (tokens) => Math.ceil(tokens / BLOCK_SIZE),
      matchedBlocks: () => 0,
      freeAmongMatched: () => 0,
      isPending: () => false,
      ...setting.kv,
    },
  };
}

function planFor(setting: Setting): Plan {
  const plan = createPlan();
  schedule(state(setting), plan);
  return plan;
}

let nextBlock = 1;

/** A sequence with `computed` of its tokens in blocks of its own; `blocks` names others. */
function sequence(id: number, length: number, computed: number, blocks?: readonly number[]): Sequence {
  const made = new Sequence(request(id, { promptTokens: promptOf(length, id), maxTokens: 100 }), 900);
  const count = Math.ceil(computed / BLOCK_SIZE);
  made.blocks = Int32Array.from(blocks ?? Array.from({ length: count }, () => nextBlock++));
  made.blockCount = made.blocks.length;
  made.computed = computed;
  return made;
}

function prioritised(id: number, priority: Priority, length = 4, queuedAtMs = 0): Sequence {
  const asked = request(id, { promptTokens: promptOf(length, id), maxTokens: 100, priority });
  return new Sequence(asked, 900, queuedAtMs);
}

const generating = (id: number, length: number, blocks?: readonly number[]): Sequence =>
  sequence(id, length, length - 1, blocks);

const ids = (sequences: readonly Sequence[]): number[] => sequences.map(({ id }) => id);

test("running sequences come first, then waiting prompts fill the budget in order of arrival", () => {
  const plan = planFor({
    limits: { tokensMax: 24 },
    running: [generating(1, 6), generating(2, 7)],
    waiting: [sequence(3, 8, 0), sequence(4, 40, 0), sequence(5, 8, 0)],
  });
  expect(ids(plan.sequences)).toEqual([1, 2, 3, 4, 5]);
  expect(plan.counts).toEqual([1, 1, 8, 12, 2]);
  expect(plan.samples).toEqual([true, true, true, false, false]);
  expect(plan).toMatchObject({ tokens: 24, rows: 3 });
  expect(ids(plan.admitted)).toEqual([3, 4, 5]);
});

test("a prompt alone has the whole budget", () => {
  expect(planFor({ limits: { tokensMax: 24 }, waiting: [sequence(1, 40, 0)] }).counts).toEqual([24]);
});

test("a prompt in progress leaves a token for each sequence admitted after it", () => {
  const plan = planFor({
    limits: { tokensMax: 4, sequencesMax: 4, rowsMax: 4 },
    running: [sequence(1, 90, 8), generating(2, 6), generating(3, 6), generating(4, 6)],
  });
  expect(plan.counts).toEqual([1, 1, 1, 1]);
});

test("no more sequences run than are allowed", () => {
  const plan = planFor({
    limits: { sequencesMax: 2 },
    running: [generating(1, 6)],
    waiting: [sequence(2, 4, 0), sequence(3, 4, 0)],
  });
  expect(ids(plan.admitted)).toEqual([2]);
});

test("no block is free: the latest admitted is preempted, nobody is admitted, tokens go to the rest", () => {
  const plan = planFor({
    freeBlocks: 0,
    limits: { tokensMax: 4, sequencesMax: 4, rowsMax: 4 },
    running: [generating(1, 9, [1, 2]), sequence(2, 40, 8), generating(3, 7)],
    waiting: [sequence(4, 2, 0)],
  });
  expect(ids(plan.preempted)).toEqual([3]);
  expect(ids(plan.sequences)).toEqual([1, 2]);
  expect(plan.admitted).toEqual([]);
});

test("victims are taken until blocks come free: shared ones do not until their last holder goes", () => {
  const plan = planFor({
    freeBlocks: 0,
    shared: new Map([[50, 2]]),
    running: [
      generating(1, 9, [40, 41]),
      generating(2, 4, [51]),
      generating(3, 4, [50]),
      generating(4, 4, [50]),
    ],
  });
  expect(ids(plan.preempted)).toEqual([4, 3]);
  expect(ids(plan.sequences)).toEqual([1, 2]);
});

test("a preempted sequence gives its place in the token budget to others", () => {
  const plan = planFor({
    freeBlocks: 0,
    limits: { tokensMax: 3, sequencesMax: 3, rowsMax: 3 },
    running: [generating(1, 9, [1, 2]), sequence(2, 12, 4, [3, 4, 5]), generating(3, 7)],
  });
  expect(ids(plan.preempted)).toEqual([3]);
  expect(plan.counts).toEqual([1, 2]);
});

test("the latest sequence keeps its blocks when none is left for it, and nobody overtakes it", () => {
  const plan = planFor({
    freeBlocks: 3,
    limits: { blockCount: 33 },
    running: [generating(1, 6), sequence(2, 20, 4, [7])],
    waiting: [sequence(3, 2, 0)],
  });
  expect(plan.preempted).toEqual([]);
  expect(ids(plan.sequences)).toEqual([1]);
  expect(plan.admitted).toEqual([]);
});

test("admission wants the whole prompt and a watermark, but no watermark for a sequence alone", () => {
  const limits = { blockCount: 1001 };
  const waiting = (): Sequence[] => [sequence(2, 40, 0), sequence(3, 4, 0)];
  const admitted = (freeBlocks: number): number[] =>
    ids(planFor({ limits, freeBlocks, running: [generating(1, 6)], waiting: waiting() }).admitted);
  expect(admitted(19)).toEqual([]);
  expect(admitted(20)).toEqual([2]);
  expect(admitted(21)).toEqual([2, 3]);
  expect(ids(planFor({ limits, freeBlocks: 10, waiting: [sequence(2, 40, 0)] }).admitted)).toEqual([2]);
  expect(ids(planFor({ limits, freeBlocks: 9, waiting: [sequence(2, 40, 0)] }).admitted)).toEqual([]);
});

test("a cached prefix is memory that is not needed, unless it has to be taken from the free list", () => {
  const kv = { matchedBlocks: () => 8 };
  const waiting = (): Sequence[] => [sequence(1, 40, 0)];
  expect(planFor({ freeBlocks: 2, kv, waiting: waiting() })).toMatchObject({ starts: [32], counts: [8] });
  const allFree = { ...kv, freeAmongMatched: () => 8 };
  expect(planFor({ freeBlocks: 9, kv: allFree, waiting: waiting() }).admitted).toEqual([]);
  expect(ids(planFor({ freeBlocks: 10, kv: allFree, waiting: waiting() }).admitted)).toEqual([1]);
});

test("a sequence preempted three times waits until its longest fits", () => {
  const often = sequence(2, 8, 0);
  often.preemptions = 3;
  const setting = { running: [generating(1, 6)], waiting: [often] };
  expect(planFor({ ...setting, freeBlocks: 227 }).admitted).toEqual([]);
  expect(ids(planFor({ ...setting, freeBlocks: 228 }).admitted)).toEqual([2]);
});

test("a prompt whose next block is being computed is held; the ones behind it are not", () => {
  const waiting = [sequence(2, 8, 0), sequence(3, 8, 0)];
  const plan = planFor({
    running: [sequence(1, 20, 8)],
    waiting,
    kv: { isPending: (each) => each.id === 2 },
  });
  expect(ids(plan.admitted)).toEqual([3]);
});

test("a scored prompt takes one row a token, and leaves a row for each sequence after it", () => {
  const scored = new Sequence(
    request(1, { promptTokens: promptOf(20, 1), promptLogprobs: 0, maxTokens: 3 }),
    23,
  );
  const setting = { limits: { rowsMax: 8 }, waiting: [scored, sequence(2, 4, 0)] };
  const first = planFor(setting);
  expect(first).toMatchObject({ counts: [8], scoreRows: [8], samples: [false], rows: 8 });
  Object.assign(scored, { computed: 8, scored: 8, blocks: Int32Array.of(1, 2, 3, 4, 5), blockCount: 5 });
  const second = planFor({ ...setting, running: [scored, generating(3, 6)], waiting: [] });
  expect(second).toMatchObject({ counts: [7, 1], scoreRows: [7, 0], samples: [false, true], rows: 8 });
  Object.assign(scored, { computed: 12, scored: 12 });
  const last = planFor({ ...setting, running: [scored], waiting: [] });
  expect(last).toMatchObject({ counts: [8], scoreRows: [7], samples: [true], rows: 8 });
});

test("adjustments that do not fit: the first left out has the first turn next time", () => {
  const sampling = { ...GREEDY, repetitionPenalty: 2 };
  const running = [1, 2, 3].map((id) => {
    const made = new Sequence(request(id, { promptTokens: Int32Array.of(id, 10, 11, 12), sampling }), 100);
    return Object.assign(made, { computed: 3, blocks: Int32Array.of(id), blockCount: 1 });
  });
  const limits = { adjustmentsMax: 8 };
  const first = planFor({ limits, running });
  expect(ids(first.sequences)).toEqual([1, 2]);
  expect(first.deferred?.id).toBe(3);
  const second = planFor({ limits, running, adjustmentTurn: first.deferred! });
  expect(ids(second.sequences)).toEqual([1, 3]);
  expect(second.deferred?.id).toBe(2);
});

test("classes of priority go before each other, and within one who came first", () => {
  const waiting = [
    prioritised(1, "batch"),
    prioritised(2, "normal"),
    prioritised(3, "interactive"),
    prioritised(4, "normal"),
    prioritised(5, "interactive"),
  ];
  expect(ids(planFor({ waiting }).admitted)).toEqual([3, 5, 2, 4, 1]);
});

test("a sequence of a lower class is held back by one above that does not fit, not served around it", () => {
  const waiting = [prioritised(1, "batch"), prioritised(2, "interactive", 80)];
  expect(planFor({ waiting, freeBlocks: 10, running: [generating(3, 6)] }).admitted).toEqual([]);
});

test("of four admissions one goes to a sequence that has risen by waiting", () => {
  const old = [prioritised(1, "batch"), prioritised(2, "batch"), prioritised(3, "batch")];
  const fresh = [11, 12, 13, 14].map((id) => prioritised(id, "interactive", 4, 59_000));
  const setting = { waiting: [...old, ...fresh], limits: { sequencesMax: 4, rowsMax: 4 } };
  expect(ids(planFor({ ...setting, nowMs: 59_999 }).admitted)).toEqual([11, 12, 13, 14]);
  const risen = planFor({ ...setting, nowMs: 60_000 });
  expect(ids(risen.admitted)).toEqual([11, 12, 13, 1]);
  expect(risen.turns).toBe(0);
  // The count goes on from step to step.
  const next = planFor({ ...setting, nowMs: 60_000, turns: 2 });
  expect(ids(next.admitted)).toEqual([11, 1, 12, 13]);
  expect(next.turns).toBe(2);
});

test("the longest waiting of those that have risen goes first", () => {
  const waiting = [
    prioritised(1, "normal", 4, 20_000),
    prioritised(2, "batch", 4, 0),
    prioritised(3, "interactive", 4, 60_000),
  ];
  const limits = { sequencesMax: 1, rowsMax: 1 };
  const admitted = (nowMs: number): number[] => ids(planFor({ waiting, limits, nowMs, turns: 3 }).admitted);
  expect(admitted(49_999)).toEqual([3]);
  expect(admitted(50_000)).toEqual([1]);
  expect(admitted(60_000)).toEqual([2]);
});

test("the turn goes to whoever has waited longest, the class on top included", () => {
  // Nobody of the top class waits at this moment: a younger one below must not use up the turn of an older one.
  const waiting = [prioritised(1, "normal", 4, 5_000), prioritised(2, "batch", 4, 6_000)];
  const limits = { sequencesMax: 1, rowsMax: 1 };
  const plan = planFor({ waiting, limits, nowMs: 40_000, turns: 3 });
  expect(ids(plan.admitted)).toEqual([1]);
  expect(plan.turns).toBe(0);
});

test("the victim is the latest admitted of the lowest rank, and such a one waits for its own block", () => {
  const running = [
    generating(1, 9, [1, 2]),
    Object.assign(generating(2, 6), { rank: 2 }),
    Object.assign(generating(3, 6), { rank: 1 }),
  ];
  const plan = planFor({ freeBlocks: 0, running });
  expect(ids(plan.preempted)).toEqual([2]);
  expect(ids(plan.sequences)).toEqual([1, 3]);
  const lowest = Object.assign(generating(4, 9, [3, 4]), { rank: 2 });
  const stalled = planFor({ freeBlocks: 0, running: [generating(5, 6), lowest] });
  expect(stalled.preempted).toEqual([]);
  expect(ids(stalled.sequences)).toEqual([5]);
});

test("a running queue is kept by rank, and within one by admission", () => {
  const queue = new SequenceQueue();
  for (const [id, rank] of [
    [1, 1],
    [2, 0],
    [3, 2],
    [4, 1],
    [5, 0],
    [6, 2],
  ] as const) {
    queue.insertByRank(Object.assign(sequence(id, 4, 0), { rank }));
  }
  const forward: number[] = [];
  for (let each = queue.first; each !== null; each = each.next) forward.push(each.id);
  const backward: number[] = [];
  for (let each = queue.last; each !== null; each = each.previous) backward.unshift(each.id);
  expect(forward).toEqual([2, 5, 1, 4, 3, 6]);
  expect(backward).toEqual(forward);
  expect(queue.size).toBe(6);
});

test("schedule changes nothing but the plan", () => {
  const running = [generating(1, 9, [1, 2]), generating(2, 6)];
  const setting = { freeBlocks: 0, running, waiting: [sequence(3, 5, 0)] };
  const before = structuredClone(
    running.map(({ blocks, computed, length, state }) => ({ blocks, computed, length, state })),
  );
  const first = planFor(setting);
  const second = planFor(setting);
  expect(ids(second.sequences)).toEqual(ids(first.sequences));
  expect(running.map(({ blocks, computed, length, state }) => ({ blocks, computed, length, state }))).toEqual(
    before,
  );
});
