/** The sample op as a program: against its definition, and rows against themselves in other batches. */

import { describe, expect, test } from "bun:test";
import { expectSameBits, SAMPLE_LEVELS } from "./harness.ts";
import { Random } from "./random.ts";
import { choose, logProbabilities, philox, ranked } from "./reference/sample.ts";
import {
  ADJUSTMENTS_MAX,
  adjusted,
  bell,
  build,
  PLAIN,
  ROWS_MAX,
  type Row,
  TOP_COUNT_MAX,
} from "./sample-case.ts";

function randomRow(random: Random, vocabulary: number): Row {
  const scale = random.pick([0, 0, 0.5, 3, 12]);
  const logits = scale === 0 ? bell(random, vocabulary) : random.floats(vocabulary, scale);
  const coarse = random.byte() < 80;
  const count = random.below(4);
  return {
    logits: coarse ? logits.map(Math.round) : logits,
    temperature: random.pick([0, 0.25, 1, 2]),
    topK: random.pick([0, 0, 1, 5, 40, 100_000]),
    topP: Math.fround(random.pick([1, 1, 0.5, 0.9, 0.01])),
    minP: Math.fround(random.pick([0, 0, 0.002, 0.05, 0.5])),
    seedLow: random.below(2 ** 24) * 131,
    seedHigh: random.below(2 ** 24) * 177,
    position: random.below(5000),
    logprobCount: random.pick([-1, 0, TOP_COUNT_MAX]),
    forcedToken: random.byte() < 30 ? random.below(vocabulary) : -1,
    adjustments: Array.from({ length: count }, () => ({
      token: random.below(vocabulary),
      multiplier: random.pick([1, 1.3, 0.8]),
      addend: random.pick([0, -2, 3.5, Number.NEGATIVE_INFINITY]),
    })),
  };
}

test("the reference's generator gives the authors' known answers", () => {
  expect(philox([0, 0, 0, 0], [0, 0])).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  const pi = philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]);
  expect(pi).toEqual([0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
});

describe("random rows", () => {
  for (const vocabulary of [2, 17, 1000, 5003]) {
    test(`of ${vocabulary} tokens choose and report what the definition says`, () => {
      const random = new Random(vocabulary);
      for (let round = 0; round < 12; round++) {
        const rows = Array.from({ length: 1 + random.below(ROWS_MAX) }, () => randomRow(random, vocabulary))
          // Something must be left to choose.
          .map((row) => (vocabulary === 2 ? { ...row, adjustments: [] } : row));
        const definitions = rows.map((row) => ({
          row,
          token: row.forcedToken >= 0 ? row.forcedToken : choose(adjusted(row), row),
          own: logProbabilities(row.logits),
          order: ranked(row.logits).slice(0, Math.max(0, row.logprobCount)),
        }));
        const { recording, outputs } = build(rows);
        for (const { outcome } of recording.runEverywhere([rows.length], outputs, SAMPLE_LEVELS)) {
          const [tokens, topTokens] = [outcome.i32(outputs[0]), outcome.i32(outputs[2])];
          const [logprobs, topLogprobs] = [outcome.f32(outputs[1]), outcome.f32(outputs[3])];
          definitions.forEach(({ row, token, own, order }, r) => {
            expect(tokens[r]).toBe(token);
            expect(Math.abs(logprobs[r]! - (row.logprobCount < 0 ? 0 : own[token]!))).toBeLessThan(1e-5);
            for (let i = 0; i < TOP_COUNT_MAX; i++) {
              const at = r * TOP_COUNT_MAX + i;
              expect(topTokens[at]).toBe(order[i] ?? -1);
              const expected = order[i] === undefined ? 0 : own[order[i]!]!;
              expect(Math.abs(topLogprobs[at]! - expected)).toBeLessThan(1e-5);
            }
          });
        }
      }
    });
  }
});

test("a row is the same alone and among others, bit for bit", () => {
  const random = new Random(77);
  const rows = Array.from({ length: ROWS_MAX }, () => randomRow(random, 3000));
  const together = build(rows);
  for (const { level, devices } of SAMPLE_LEVELS) {
    const all = together.recording.run(devices[1], [ROWS_MAX]);
    rows.forEach((row, r) => {
      const alone = build([row]);
      const one = alone.recording.run(devices[0], [1]);
      together.outputs.forEach((tensor, i) => {
        const bytes = all.bytes(tensor);
        const width = bytes.length / ROWS_MAX;
        const expected = bytes.subarray(r * width, (r + 1) * width);
        expectSameBits(one.bytes(alone.outputs[i]!), expected, `${level} row ${r}`);
      });
    });
  }
});

test("the same seed and position give the same token in any row; another position gives another draw", () => {
  const logits = new Float32Array(1000);
  const rows = Array.from({ length: 8 }, (_, i) => ({ ...PLAIN, logits, temperature: 1, position: i % 4 }));
  const { recording, outputs } = build(rows);
  for (const { outcome } of recording.runEverywhere([8], outputs, SAMPLE_LEVELS)) {
    const tokens = [...outcome.i32(outputs[0])];
    expect(tokens.slice(4)).toEqual(tokens.slice(0, 4));
    expect(new Set(tokens).size).toBe(4);
  }
});

describe("refuses, and touches nothing outside", () => {
  const logits = Float32Array.from([1, 2, 3]);
  const one = { token: 0, multiplier: 1, addend: 0 };
  const cases: readonly (readonly [string, Partial<Row>, number[]?])[] = [
    ["a token below the vocabulary", { adjustments: [{ ...one, token: -1 }] }],
    ["a token above it", { adjustments: [{ ...one, token: 3 }] }],
    ["a forced token outside", { forcedToken: 3 }],
    ["a list that begins below zero", {}, [-1, 0]],
    ["a list that falls", {}, [1, 0]],
    ["a list past the end", {}, [0, ADJUSTMENTS_MAX + 1]],
    ["a temperature of NaN", { temperature: Number.NaN }],
    ["a negative temperature", { temperature: -1 }],
    ["a top-p above one", { topP: 1.5 }],
    ["more log-probabilities than there is room for", { logprobCount: TOP_COUNT_MAX + 1 }],
  ];
  for (const [name, change, starts] of cases) {
    test(name, () => {
      const { recording } = build([{ ...PLAIN, logits, ...change }], starts === undefined ? {} : { starts });
      for (const { devices } of SAMPLE_LEVELS) {
        for (const device of devices) expect(() => recording.run(device, [1])).toThrow("sample");
      }
    });
  }
});
