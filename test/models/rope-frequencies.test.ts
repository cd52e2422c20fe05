import { describe, expect, test } from "bun:test";
import { type RopeScaling, ropeFrequencies } from "../../src/models/rope-frequencies.ts";

const DIMS = 16;
const frequencies = (scaling: RopeScaling, contextLength = 64, divisors?: number[]) =>
  ropeFrequencies({ theta: 10_000, dims: DIMS, scaling }, contextLength, divisors);

/** Expected values: `ROPE_INIT_FUNCTIONS` of transformers 5.23.0, base 10 000, 16 dimensions. */
const EXPECTED = {
  linear: {
    scaling: { type: "linear", factor: 4 },
    contextLength: 64,
    attentionFactor: 1.0,
    values: [
      0.25, 0.079056941, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-5,
    ],
  },
  "dynamic within the trained length": {
    scaling: { type: "dynamic", factor: 4, originalContextLength: 64 },
    contextLength: 64,
    attentionFactor: 1.0,
    values: [1.0, 0.31622776, 0.1, 0.031622779, 0.0099999998, 0.0031622779, 0.001, 0.00031622779],
  },
  "dynamic beyond it": {
    scaling: { type: "dynamic", factor: 4, originalContextLength: 64 },
    contextLength: 256,
    attentionFactor: 1.0,
    values: [
      1.0, 0.21921247, 0.048054103, 0.010534058, 0.0023091969, 0.00050620473, 0.00011096639, 2.4325213e-5,
    ],
  },
  llama3: {
    scaling: {
      type: "llama3",
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalContextLength: 32,
    },
    contextLength: 64,
    attentionFactor: 1.0,
    values: [1.0, 0.095839977, 0.0125, 0.0039528473, 0.00125, 0.00039528473, 0.00012500001, 3.9528473e-5],
  },
  yarn: {
    scaling: {
      type: "yarn",
      factor: 4,
      originalContextLength: 32,
      betaFast: 32,
      betaSlow: 1,
      attentionFactor: 1.138629436111989,
      truncate: true,
    },
    contextLength: 64,
    attentionFactor: 1.138629436111989,
    values: [1.0, 0.19764236, 0.025, 0.0079056947, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-5],
  },
  "yarn without rounding": {
    scaling: {
      type: "yarn",
      factor: 4,
      originalContextLength: 512,
      betaFast: 16,
      betaSlow: 2,
      attentionFactor: 1.5,
      truncate: false,
    },
    contextLength: 64,
    attentionFactor: 1.5,
    values: [
      1.0, 0.31622776, 0.075664401, 0.010796109, 0.0024999999, 0.00079056947, 0.00025000001, 7.9056947e-5,
    ],
  },
  "longrope, short": {
    scaling: {
      type: "longrope",
      longFactors: [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
      shortFactors: [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7000000000000002],
      originalContextLength: 64,
      attentionFactor: 1.25,
    },
    contextLength: 64,
    attentionFactor: 1.25,
    values: [
      1.0, 0.28747976, 0.083333336, 0.024325214, 0.0071428572, 0.0021081853, 0.00062499999, 0.00018601633,
    ],
  },
  "longrope, long": {
    scaling: {
      type: "longrope",
      longFactors: [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5],
      shortFactors: [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7000000000000002],
      originalContextLength: 64,
      attentionFactor: 1.25,
    },
    contextLength: 65,
    attentionFactor: 1.25,
    values: [
      1.0, 0.2108185, 0.050000001, 0.012649111, 0.0033333334, 0.00090350793, 0.00025000001, 7.0272836e-5,
    ],
  },
} satisfies Record<
  string,
  { scaling: RopeScaling; contextLength: number; attentionFactor: number; values: readonly number[] }
>;

function expectClose(actual: ArrayLike<number>, expected: readonly number[]): void {
  expect(actual.length).toBe(expected.length);
  expected.forEach((value, index) => {
    expect(Math.abs(actual[index]! / value - 1)).toBeLessThan(1e-6);
  });
}

describe("inverse frequencies are those of transformers", () => {
  for (const [name, { scaling, contextLength, values, attentionFactor }] of Object.entries(EXPECTED)) {
    test(name, () => {
      const result = frequencies(scaling, contextLength);
      expectClose(result.inverseFrequencies, values);
      expect(result.attentionFactor).toBeCloseTo(attentionFactor, 9);
    });
  }
});

test("divisors divide each frequency", () => {
  const plain = frequencies({ type: "none" }).inverseFrequencies;
  const divided = frequencies({ type: "none" }, 64, [1, 2, 4, 8, 1, 2, 4, 8]).inverseFrequencies;
  expect([...divided].map((value, index) => Math.round(plain[index]! / value))).toEqual([
    1, 2, 4, 8, 1, 2, 4, 8,
  ]);
});
