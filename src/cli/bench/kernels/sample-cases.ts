/** The cases of sampling, over the largest vocabulary that is common: the likeliest token, and drawn with all filters. */

import { SAMPLING_PARAMETER, SAMPLING_PARAMETER_WORDS } from "../../../graph/ops.ts";
import { all, type Fill, multiples, scattered, wave } from "./fills.ts";
import { F32_BYTES, type KernelCase } from "./kernel-case.ts";

const VOCABULARY = 151_936;
const ROWS = [1, 8] as const;
/** Tokens that have penalties, in each row. */
const ADJUSTMENTS = 256;

interface Sampling {
  readonly name: string;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly adjustments: number;
}

const SAMPLINGS: readonly Sampling[] = [
  { name: "greedy", temperature: 0, topK: 0, topP: 1, adjustments: 0 },
  {
    name: "top-k 40, top-p 0.95, 256 penalties",
    temperature: 0.8,
    topK: 40,
    topP: 0.95,
    adjustments: ADJUSTMENTS,
  },
  { name: "top-p 0.95, 256 penalties", temperature: 0.8, topK: 0, topP: 0.95, adjustments: ADJUSTMENTS },
];

export function sampleCases(): KernelCase[] {
  return SAMPLINGS.map((sampling) => ({
    op: "sample",
    dtype: "f32",
    shape: `${VOCABULARY} ${sampling.name}`,
    tokens: ROWS,
    source: "cache",
    streamedBytes: 0,
    bytes: (rows) => rows * VOCABULARY * F32_BYTES,
    operations: (rows) => rows * VOCABULARY,
    arithmetic: "f32",
    repackable: false,
    record(recorder, parity) {
      const rows = recorder.tokens(parity);
      const entries = ROWS.at(-1)! * ADJUSTMENTS;
      const operands = {
        tokens: recorder.output(`tokens${parity}`, "i32", [rows]),
        logprobs: recorder.output(`logprobs${parity}`, "f32", [rows]),
        top_tokens: recorder.output(`top_tokens${parity}`, "i32", [rows, 1]),
        top_logprobs: recorder.output(`top_logprobs${parity}`, "f32", [rows, 1]),
        logits: recorder.output(`logits${parity}`, "f32", [rows, VOCABULARY], wave),
        parameters: recorder.input(
          `parameters${parity}`,
          "i32",
          [rows, SAMPLING_PARAMETER_WORDS],
          parametersOf(sampling),
        ),
        adjustment_starts: recorder.input(
          `starts${parity}`,
          "i32",
          [{ symbol: rows, plus: 1 }],
          multiples(sampling.adjustments),
        ),
        adjustment_tokens: recorder.input(`penalised${parity}`, "i32", [entries], scattered(VOCABULARY)),
        // The work of penalties without their effect: logits are changed in place, and again with each op.
        adjustment_multipliers: recorder.input(`multipliers${parity}`, "f32", [entries], all(1)),
        adjustment_addends: recorder.input(`addends${parity}`, "f32", [entries], all(0)),
      };
      return () => recorder.record("sample", operands);
    },
  }));
}

function parametersOf({ temperature, topK, topP }: Sampling): Fill {
  return (memory) => {
    const words = new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
    const floats = new Float32Array(memory.buffer, memory.byteOffset, words.length);
    for (let base = 0; base < words.length; base += SAMPLING_PARAMETER_WORDS) {
      floats[base + SAMPLING_PARAMETER.temperature] = temperature;
      words[base + SAMPLING_PARAMETER.top_k] = topK;
      floats[base + SAMPLING_PARAMETER.top_p] = topP;
      words[base + SAMPLING_PARAMETER.seed_low] = base + 1;
      words[base + SAMPLING_PARAMETER.logprob_count] = -1;
      words[base + SAMPLING_PARAMETER.forced_token] = -1;
    }
  };
}
