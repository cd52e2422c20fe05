import { expect, test } from "bun:test";
import fc from "fast-check";
import { Adjustments, adjustmentsWorstCase } from "../../src/engine/adjustments.ts";
import { DryPenalty } from "../../src/engine/dry.ts";
import type { SamplingParameters } from "../../src/engine/messages.ts";
import { GREEDY } from "./requests.ts";

/** Enough for the tables to grow twice. */
const VOCABULARY = 40;

/** The rules in plain float64: DRY as its own test has it, frequency and presence, then repetition, then bias. */
function reference(
  sampling: SamplingParameters,
  prompt: number[],
  generated: number[],
  logits: number[],
): number[] {
  const dry = new Map<number, number>();
  if (sampling.dry !== undefined) {
    const penalty = new DryPenalty(sampling.dry, Int32Array.from([...prompt, ...generated]));
    penalty.visit((token, loss) => {
      dry.set(token, loss);
    });
  }
  return logits.map((logit, token) => {
    const count = generated.filter((other) => other === token).length;
    let value =
      logit -
      (dry.get(token) ?? 0) -
      (count * sampling.frequencyPenalty + (count > 0 ? sampling.presencePenalty : 0));
    if (prompt.includes(token) || generated.includes(token)) {
      value = value > 0 ? value / sampling.repetitionPenalty : value * sampling.repetitionPenalty;
    }
    for (const entry of sampling.logitBias) if (entry.token === token) value += entry.bias;
    return value;
  });
}

/** What the sample op does with the list. */
function applied(adjustments: Adjustments, logits: number[]): number[] {
  const target = {
    adjustmentTokens: new Int32Array(200).fill(-1),
    adjustmentMultipliers: new Float32Array(200),
    adjustmentAddends: new Float32Array(200),
  };
  const end = adjustments.write(target, 3);
  expect(end - 3).toBe(adjustments.count);
  const result = [...logits];
  for (let index = 3; index < end; index++) {
    const token = target.adjustmentTokens[index]!;
    const multiplier = target.adjustmentMultipliers[index]!;
    const logit = result[token]!;
    result[token] = (logit > 0 ? logit / multiplier : logit * multiplier) + target.adjustmentAddends[index]!;
  }
  expect(target.adjustmentTokens[end]).toBe(-1);
  return result;
}

const token = fc.integer({ min: 0, max: VOCABULARY - 1 });
const scenario = fc.record({
  prompt: fc.array(token, { minLength: 1, maxLength: 60 }),
  generated: fc.array(token, { maxLength: 60 }),
  logits: fc.array(fc.integer({ min: -40, max: 40 }), { minLength: VOCABULARY, maxLength: VOCABULARY }),
  frequencyPenalty: fc.constantFrom(0, 0.5, -0.25, 2),
  presencePenalty: fc.constantFrom(0, 0.75, -1),
  repetitionPenalty: fc.constantFrom(1, 1.25, 0.5, 2),
  dry: fc.constantFrom(undefined, { multiplier: 0.5, base: 1.5, allowedLength: 1, breakers: [3] }),
  logitBias: fc.array(fc.record({ token, bias: fc.constantFrom(-100, -1, 0.5, 3) }), { maxLength: 20 }),
});

test("the list does what the rules say, whatever their combination", () => {
  fc.assert(
    fc.property(scenario, ({ prompt, generated, logits, dry, ...rules }) => {
      const sampling = { ...GREEDY, ...rules, ...(dry === undefined ? {} : { dry }) };
      const adjustments = new Adjustments(sampling, Int32Array.from(prompt));
      for (const next of generated) adjustments.add(next);
      const expected = reference(sampling, prompt, generated, logits);
      const actual = applied(adjustments, logits);
      for (let index = 0; index < VOCABULARY; index++)
        expect(actual[index]!).toBeCloseTo(expected[index]!, 4);
      const lengthMax = prompt.length + generated.length;
      expect(adjustments.count).toBeLessThanOrEqual(
        adjustmentsWorstCase(sampling, prompt.length, lengthMax, VOCABULARY),
      );
    }),
    { seed: 3, numRuns: 500 },
  );
});

test("a repetition penalty divides positive logits and multiplies negative ones", () => {
  const adjustments = new Adjustments({ ...GREEDY, repetitionPenalty: 2 }, Int32Array.of(0, 1));
  expect(applied(adjustments, [2, -2, 2])).toEqual([1, -4, 2]);
});
