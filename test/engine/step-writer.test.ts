import { expect, test } from "bun:test";
import { createPlan } from "../../src/engine/plan.ts";
import { Sequence } from "../../src/engine/sequence.ts";
import { StepWriter } from "../../src/engine/step-writer.ts";
import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../src/graph/ops.ts";
import { FakeRunner } from "./fake-runner.ts";
import { GREEDY, request } from "./requests.ts";

test("lays out a chunk that scores its prompt beside a sequence that generates", () => {
  const { inputs, limits } = new FakeRunner({ limits: { blockSize: 4, blocksPerSequenceMax: 8 } });
  const scored = new Sequence(
    request(1, { promptTokens: Int32Array.of(10, 11, 12, 13, 14, 15, 16), promptLogprobs: 2 }),
    20,
  );
  Object.assign(scored, { computed: 3, scored: 4, blocks: Int32Array.of(9, 5, 0), blockCount: 2 });
  const sampling = {
    ...GREEDY,
    temperature: 0.5,
    topK: 40,
    topP: 0.75,
    minP: 0.25,
    seed: 0xffff_fffe_0000_0007n,
    logprobs: 3,
    repetitionPenalty: 2,
    logitBias: [{ token: 30, bias: -5 }],
  };
  const generating = new Sequence(request(2, { promptTokens: Int32Array.of(20, 21), sampling }), 20);
  generating.append(22);
  Object.assign(generating, { computed: 2, blocks: Int32Array.of(7), blockCount: 1 });
  const plan = Object.assign(createPlan(), {
    sequences: [scored, generating],
    starts: [3, 2],
    counts: [3, 1],
    scoreRows: [2, 0],
    samples: [false, true],
  });
  new StepWriter(inputs, limits).write(plan);
  expect([...inputs.tokenIds.subarray(0, 4)]).toEqual([13, 14, 15, 22]);
  expect([...inputs.positions.subarray(0, 4)]).toEqual([3, 4, 5, 2]);
  expect([...inputs.slotMapping.subarray(0, 4)]).toEqual([9 * 4 + 3, 5 * 4, 5 * 4 + 1, 7 * 4 + 2]);
  expect([...inputs.sequenceStarts.subarray(0, 3)]).toEqual([0, 3, 4]);
  expect([...inputs.contextLengths.subarray(0, 2)]).toEqual([6, 3]);
  expect([...inputs.blockTables.subarray(0, 2)]).toEqual([9, 5]);
  expect(inputs.blockTables[8]).toBe(7);
  expect([...inputs.logitRows.subarray(0, 3)]).toEqual([1, 2, 3]);
  expect([...inputs.adjustmentStarts.subarray(0, 4)]).toEqual([0, 0, 0, 4]);
  expect([...inputs.adjustmentTokens.subarray(0, 4)]).toEqual([30, 20, 21, 22]);
  expect([...inputs.adjustmentMultipliers.subarray(0, 4)]).toEqual([1, 2, 2, 2]);
  expect([...inputs.adjustmentAddends.subarray(0, 4)]).toEqual([-5, 0, 0, 0]);

  const word = (row: number, name: keyof typeof SAMPLING_PARAMETER): number =>
    inputs.samplingParameters[row * SAMPLING_PARAMETER_WORDS + SAMPLING_PARAMETER[name]]!;
  const float = (row: number, name: keyof typeof SAMPLING_PARAMETER): number =>
    inputs.samplingParametersF32[row * SAMPLING_PARAMETER_WORDS + SAMPLING_PARAMETER[name]]!;
  expect([word(0, "forced_token"), word(1, "forced_token"), word(2, "forced_token")]).toEqual([15, 16, -1]);
  expect([word(0, "logprob_count"), word(2, "logprob_count")]).toEqual([2, 3]);
  expect([float(2, "temperature"), word(2, "top_k"), float(2, "top_p"), float(2, "min_p")]).toEqual([
    0.5, 40, 0.75, 0.25,
  ]);
  expect([word(2, "seed_low"), word(2, "seed_high") >>> 0]).toEqual([7, 0xffff_fffe]);
  // The drawn token will be the fourth of its sequence: the counter does not depend on the batch.
  expect(word(2, "position")).toBe(3);
});

test("a row's table follows its sequence as it grows, changes places and is admitted anew", () => {
  const { inputs, limits } = new FakeRunner({ limits: { blockSize: 1, blocksPerSequenceMax: 4 } });
  const writer = new StepWriter(inputs, limits);
  const made = (id: number, blocks: number[]): Sequence =>
    Object.assign(new Sequence(request(id, { promptTokens: Int32Array.of(1, 2) }), 4), {
      blocks: Int32Array.from(blocks),
      blockCount: 2,
      computed: 1,
      admissions: 1,
    });
  const first = made(1, [11, 12, 13, 14]);
  const second = made(2, [21, 22, 23, 24]);
  const tables = (...sequences: Sequence[]): number[] => {
    const starts = sequences.map(() => 1);
    const plan = { sequences, starts, counts: starts, scoreRows: [0, 0], samples: [false, false] };
    writer.write(Object.assign(createPlan(), plan));
    return [...inputs.blockTables.subarray(0, 8)];
  };
  expect(tables(first, second)).toEqual([11, 12, 0, 0, 21, 22, 0, 0]);
  first.blockCount = 3;
  expect(tables(first, second)).toEqual([11, 12, 13, 0, 21, 22, 0, 0]);
  expect(tables(second)).toEqual([21, 22, 13, 0, 21, 22, 0, 0]);
  expect(tables(first, second)).toEqual([11, 12, 13, 0, 21, 22, 0, 0]);
  // Preempted and back in the same row, with other blocks.
  Object.assign(first, { blocks: Int32Array.of(31, 32, 33, 34), blockCount: 2, admissions: 2 });
  expect(tables(first, second)).toEqual([31, 32, 13, 0, 21, 22, 0, 0]);
});
