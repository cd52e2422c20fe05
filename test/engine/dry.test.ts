import { expect, test } from "bun:test";
import fc from "fast-check";
import { DryPenalty } from "../../src/engine/dry.ts";
import type { DryParameters } from "../../src/engine/messages.ts";

/** The rule as it is told: every earlier place is compared backwards with the end of the text. */
function reference({ multiplier, base, allowedLength, breakers }: DryParameters, text: readonly number[]) {
  const lengths = new Map<number, number>();
  const last = text.length - 1;
  for (let place = 0; place < last; place++) {
    const next = text[place + 1]!;
    if (breakers.includes(next)) continue;
    let length = 0;
    while (length < 50 && place - length >= 0) {
      const token = text[last - length]!;
      if (text[place - length] !== token || breakers.includes(token)) break;
      length += 1;
    }
    if (length > 0) lengths.set(next, Math.max(length, lengths.get(next) ?? 0));
  }
  const penalties = new Map<number, number>();
  for (const [token, length] of lengths) {
    if (length >= allowedLength) penalties.set(token, multiplier * base ** (length - allowedLength));
  }
  return penalties;
}

function penaltiesOf(dry: DryPenalty): Map<number, number> {
  const penalties = new Map<number, number>();
  dry.visit((token, penalty) => {
    penalties.set(token, penalty);
  });
  expect(penalties.size).toBe(dry.count);
  return penalties;
}

const PLAIN: DryParameters = { multiplier: 1, base: 2, allowedLength: 2, breakers: [] };

test("after every token the penalties are what the rule says, whatever repeats", () => {
  let penalised = 0;
  const token = fc.integer({ min: 0, max: 3 });
  fc.assert(
    fc.property(
      fc.array(token, { minLength: 1, maxLength: 60 }),
      fc.array(token, { minLength: 20, maxLength: 90 }),
      fc.record({
        multiplier: fc.constantFrom(0.8, 3),
        base: fc.constantFrom(1, 1.75),
        allowedLength: fc.integer({ min: 1, max: 4 }),
        breakers: fc.constantFrom([], [3], [0, 2]),
      }),
      (prompt, generated, parameters) => {
        const dry = new DryPenalty(parameters, Int32Array.from(prompt));
        const text = [...prompt];
        expect(penaltiesOf(dry)).toEqual(reference(parameters, text));
        for (const next of generated) {
          dry.add(next);
          text.push(next);
          expect(penaltiesOf(dry)).toEqual(reference(parameters, text));
          penalised += dry.count;
        }
      },
    ),
    { seed: 11, numRuns: 300 },
  );
  expect(penalised).toBeGreaterThan(1000);
});

test("a text that repeats itself: the token that goes on loses more with each token", () => {
  const dry = new DryPenalty(PLAIN, Int32Array.of(1, 2, 3, 4, 9, 1, 2));
  expect(penaltiesOf(dry)).toEqual(new Map([[3, 1]]));
  dry.add(3);
  expect(penaltiesOf(dry)).toEqual(new Map([[4, 2]]));
  dry.add(4);
  expect(penaltiesOf(dry)).toEqual(new Map([[9, 4]]));
  dry.add(5);
  expect(penaltiesOf(dry)).toEqual(new Map());
});

test("nothing is repeated across a breaker", () => {
  const parameters = { ...PLAIN, breakers: [7] };
  expect(penaltiesOf(new DryPenalty(parameters, Int32Array.of(1, 7, 2, 5, 1, 7, 2)))).toEqual(new Map());
  expect(penaltiesOf(new DryPenalty(PLAIN, Int32Array.of(1, 7, 2, 5, 1, 7, 2)))).toEqual(new Map([[5, 2]]));
  // A breaker itself is never penalised.
  expect(penaltiesOf(new DryPenalty(parameters, Int32Array.of(1, 2, 7, 1, 2)))).toEqual(new Map());
});

test("a repetition counts up to fifty tokens, and the penalty stays a number", () => {
  const dry = new DryPenalty(
    { ...PLAIN, base: 1.1, allowedLength: 1 },
    Int32Array.from({ length: 200 }, () => 5),
  );
  expect(penaltiesOf(dry).get(5)).toBeCloseTo(1.1 ** 49, 6);
  const steep = new DryPenalty(
    { ...PLAIN, base: 100 },
    Int32Array.from({ length: 200 }, () => 5),
  );
  expect(penaltiesOf(steep).get(5)).toBe(1e9);
});

test("a token costs a look at its own occurrences only: 30,000 tokens of context add no delay", () => {
  const prompt = Int32Array.from(
    { length: 30_000 },
    (_, index) => (Math.imul(index, 2_654_435_761) >>> 8) % 997,
  );
  const dry = new DryPenalty(PLAIN, prompt);
  const started = performance.now();
  for (let index = 0; index < 2_000; index++) dry.add(prompt[index]!);
  // A scan of the context for each token would take about a second.
  expect((performance.now() - started) / 2_000).toBeLessThan(0.05);
});
