/**
 * The sample op over vocabularies that a GPU splits over several blocks, with more equal tokens than it lists, with
 * long lists of adjustments and with rows that hold no usable number.
 */

import { describe, expect, test } from "bun:test";
import { expectSameBits, SAMPLE_LEVELS } from "./harness.ts";
import { Random } from "./random.ts";
import { choose, logProbabilities, ranked } from "./reference/sample.ts";
import { type Adjustment, adjusted, bell, build, PLAIN, type Row, TOP_COUNT_MAX } from "./sample-case.ts";

/** Several parts of 4096; the first ends within one and is not a multiple of four. */
const VOCABULARIES = [9001, 20_000] as const;

/** Runs the rows everywhere and holds tokens and log-probabilities against the definition. */
function check(rows: readonly Row[]): void {
  const definitions = rows.map((row) => ({
    row,
    token: row.forcedToken >= 0 ? row.forcedToken : choose(adjusted(row), row),
    own: logProbabilities(row.logits),
    order: ranked(row.logits).slice(0, Math.max(0, row.logprobCount)),
  }));
  const { recording, outputs } = build(rows);
  for (const { level, outcome } of recording.runEverywhere([rows.length], outputs, SAMPLE_LEVELS)) {
    const [tokens, topTokens] = [outcome.i32(outputs[0]), outcome.i32(outputs[2])];
    const [logprobs, topLogprobs] = [outcome.f32(outputs[1]), outcome.f32(outputs[3])];
    definitions.forEach(({ row, token, own, order }, r) => {
      expect(`${level} row ${r}: ${tokens[r]}`).toBe(`${level} row ${r}: ${token}`);
      expect(row.logprobCount >= 0 || logprobs[r] === 0).toBe(true);
      if (row.logprobCount < 0) return;
      expect(Math.abs(logprobs[r]! - own[token]!)).toBeLessThan(1e-5);
      order.forEach((id, i) => {
        expect(topTokens[r * TOP_COUNT_MAX + i]).toBe(id);
        expect(Math.abs(topLogprobs[r * TOP_COUNT_MAX + i]! - own[id]!)).toBeLessThan(1e-5);
      });
    });
  }
}

const FILTERS: readonly Partial<Row>[] = [
  { temperature: 1 },
  { temperature: 0.5, topP: 0.75 },
  { temperature: 1, topK: 8500 },
  { temperature: 2, topK: 8999, topP: 0.5, minP: 0.25 },
  { temperature: 1, topK: 3 },
  { temperature: 1, minP: 1 },
  { temperature: 1, topP: 0 },
  { temperature: 1e-30 },
];

describe.each(VOCABULARIES)("%d tokens", (vocabulary) => {
  const rowsOf = (logits: Float32Array, seed: number) =>
    FILTERS.map(
      (filter, i): Row => ({
        ...PLAIN,
        ...filter,
        logits,
        position: 10 * seed + i,
        logprobCount: i % 2 === 0 ? -1 : TOP_COUNT_MAX,
      }),
    );

  test("that are all the same", () => {
    check(rowsOf(new Float32Array(vocabulary).fill(-3.5), 1));
  });

  test("that are almost the same", () => {
    check(rowsOf(new Random(vocabulary).floats(vocabulary, 0.02), 2));
  });

  test("of which a few are likely", () => {
    check(rowsOf(bell(new Random(vocabulary + 1), vocabulary), 3));
  });

  test("of which the greedy choice is in any part, the lowest of equals", () => {
    const places = [0, 1, 4095, 4096, 8191, 8192, vocabulary - 1];
    check(
      places.map((place, i) => {
        const logits = Float32Array.from({ length: vocabulary }, (_, id) => -5 - (id % 3));
        logits[place] = 2;
        logits[vocabulary - 1] = 2;
        return { ...PLAIN, logits, logprobCount: i % 2 === 0 ? TOP_COUNT_MAX : 0 };
      }),
    );
  });

  test("adjusted by long lists, in their order", () => {
    const random = new Random(vocabulary + 2);
    const logits = bell(random, vocabulary);
    const best = ranked(logits);
    const listOf = (count: number): Adjustment[] =>
      Array.from({ length: count }, () => ({
        // The most likely again and again, and others anywhere.
        token: random.byte() < 200 ? best[random.below(40)]! : random.below(vocabulary),
        multiplier: random.pick([1, 1.1, 0.9]),
        addend: random.pick([0, -0.25, 0.3]),
      }));
    check(
      [700, 600, 1, 0, 500].map((count, i) => ({
        ...PLAIN,
        logits,
        temperature: i % 2,
        topP: 0.5,
        logprobCount: 2,
        position: i,
        adjustments: listOf(count),
      })),
    );
  });

  test("that are forced are scored, whatever the adjustments", () => {
    const logits = bell(new Random(vocabulary + 3), vocabulary);
    const adjustments = [{ token: vocabulary - 1, multiplier: 1, addend: 50 }];
    check(
      [-1, 0, TOP_COUNT_MAX].map((logprobCount) => ({
        ...PLAIN,
        logits,
        logprobCount,
        forcedToken: vocabulary - 1,
        adjustments,
      })),
    );
  });
});

test("adjustments change the logits in place, forced rows keep them", () => {
  const logits = bell(new Random(9), 9001);
  const adjustments = [
    { token: 8999, multiplier: 1.3, addend: 1 },
    { token: 8999, multiplier: 0.7, addend: -2 },
    { token: 5, multiplier: 1, addend: Number.NEGATIVE_INFINITY },
  ];
  const row = { ...PLAIN, logits, adjustments };
  const built = build([row, { ...row, forcedToken: 1 }]);
  const expected = [adjusted(row), logits].flatMap((part) => [...new Uint8Array(part.buffer)]);
  for (const { level, outcome } of built.recording.runEverywhere([2], [built.logits], SAMPLE_LEVELS)) {
    expectSameBits(outcome.bytes(built.logits), Uint8Array.from(expected), level);
  }
});

test("a row without a number has no token, and its neighbours have theirs", () => {
  const filled = (value: number) => new Float32Array(5000).fill(value);
  const mixed = filled(Number.NaN).map((value, id) => (id % 2 === 0 ? value : Number.NEGATIVE_INFINITY));
  const infinite = filled(1).map((value, id) => (id === 4500 ? Number.POSITIVE_INFINITY : value));
  const holes = filled(Number.NaN).map((value, id) => (id === 4097 ? -2 : value));
  const dead = [filled(Number.NaN), filled(Number.NEGATIVE_INFINITY), mixed];
  const rows = [0, 1].flatMap((temperature) =>
    [...dead, infinite, holes].map((logits) => ({ ...PLAIN, logits, temperature, logprobCount: 2 })),
  );
  const { recording, outputs } = build(rows);
  for (const { outcome } of recording.runEverywhere([rows.length], outputs, SAMPLE_LEVELS)) {
    expect([...outcome.i32(outputs[0])]).toEqual([-1, -1, -1, 4500, 4097, -1, -1, -1, 4500, 4097]);
    expect(outcome.f32(outputs[1]).every((value) => value === 0)).toBe(true);
    const best = [...outcome.i32(outputs[2])].filter((_, i) => i % TOP_COUNT_MAX < 2).slice(0, 10);
    expect(best).toEqual([-1, -1, 0, 1, 1, 3, 4500, 0, 4097, -1]);
  }
});
