import { expect, test } from "bun:test";
import { createPlan } from "../../src/engine/plan.ts";
import { Sequence } from "../../src/engine/sequence.ts";
import { writeStep } from "../../src/engine/step-writer.ts";
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
  writeStep(plan, inputs, limits);
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
