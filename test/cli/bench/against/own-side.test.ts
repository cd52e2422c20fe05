import { expect, test } from "bun:test";
import { OwnSide } from "../../../../src/cli/bench/against/own-side.ts";
import { blocksOf } from "../../../../src/cli/bench/bench-step.ts";
import { CheckingRunner } from "../checking-runner.ts";

const ROOM = { sequences: 3, promptTokens: 20, totalTokens: 30, seed: 1n };
const BLOCK_SIZE = 8;

function make() {
  const runner = new CheckingRunner({
    sequences: ROOM.sequences,
    blocks: blocksOf(ROOM.sequences, ROOM.totalTokens, BLOCK_SIZE),
    tokensMax: 16,
    blockSize: BLOCK_SIZE,
    mayOverwrite: true,
  });
  return { runner, side: new OwnSide(runner, ROOM, () => runner.nowMs) };
}

/** The steps since the last call. */
const stepsOf = (runner: CheckingRunner): string[] =>
  runner.steps.splice(0).map(({ tokens, sequences, rows }) => `${tokens} ${sequences} ${rows}`);

test("a prompt is computed in full steps and its last token sampled, again and again", () => {
  const { runner, side } = make();
  for (let turn = 0; turn < 2; turn++) {
    expect(side.prefill(20)).toBe(0.02);
    expect(stepsOf(runner)).toEqual(["16 1 0", "4 1 1"]);
  }
  expect(side.prefill(5)).toBe(0.005);
  expect(stepsOf(runner)).toEqual(["5 1 1"]);
});

test("what comes before generated tokens is computed once; one step warms the caches and is not timed", () => {
  const { runner, side } = make();
  expect(side.decode(4, 10, 1)).toBe(0.004);
  expect(stepsOf(runner)).toEqual(["10 1 0", ...Array(5).fill("1 1 1")]);
  // More sequences: only those that are new.
  expect(side.decode(2, 10, 3)).toBe(0.006);
  expect(stepsOf(runner)).toEqual(["16 2 0", "4 1 0", ...Array(3).fill("3 3 3")]);
  // Deeper: only what is missing.
  expect(side.decode(1, 12, 2)).toBe(0.002);
  expect(stepsOf(runner)).toEqual(["4 2 0", ...Array(2).fill("2 2 2")]);
  expect(side.decode(3, 0, 1)).toBe(0.003);
  expect(stepsOf(runner)).toEqual(Array(4).fill("1 1 1"));
});

test("a prompt takes the place of the first sequence, which is computed anew", () => {
  const { runner, side } = make();
  side.decode(1, 8, 1);
  side.prefill(4);
  stepsOf(runner);
  side.decode(1, 8, 1);
  expect(stepsOf(runner)).toEqual(["8 1 0", "1 1 1", "1 1 1"]);
});
