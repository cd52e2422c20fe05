import { expect, test } from "bun:test";
import { parseGenerationDefaults } from "../../../src/server/generation/defaults.ts";

test("the values of generation_config.json are read by their names", () => {
  const config = {
    do_sample: true,
    temperature: 0.7,
    top_p: 0.9,
    top_k: 50,
    min_p: 0.1,
    repetition_penalty: 1.1,
    suppress_tokens: [3, 5, -1, "x"],
  };
  expect(parseGenerationDefaults({ ...config, eos_token_id: 2, transformers_version: "4" })).toEqual({
    temperature: 0.7,
    topP: 0.9,
    topK: 50,
    minP: 0.1,
    repetitionPenalty: 1.1,
    suppressTokens: [3, 5],
  });
});

test("sampling switched off is greedy; not mentioned, it is not", () => {
  expect(parseGenerationDefaults({ do_sample: false, temperature: 0.7 })).toEqual({ temperature: 0 });
  expect(parseGenerationDefaults({ temperature: 0.7 })).toEqual({ temperature: 0.7 });
});

test("values of a wrong kind are left to the defaults", () => {
  for (const config of [undefined, null, 5, [], {}, { temperature: "hot", top_p: 0, top_k: -3, min_p: 2 }]) {
    expect(parseGenerationDefaults(config)).toEqual({});
  }
});
