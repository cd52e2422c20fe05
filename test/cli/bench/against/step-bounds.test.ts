import { expect, test } from "bun:test";
import { join } from "node:path";
import { StepWork } from "../../../../src/cli/bench/against/step-bounds.ts";
import { openCheckpoint } from "../../../../src/weights/checkpoint.ts";
import { type Golden, readGolden, writeGgufTwin } from "../../../reference/tiny-checkpoint.ts";
import { writeOldLlamaTwin } from "../../../support/old-llama.ts";
import { temporaryFolder } from "../../../support/temporary-folder.ts";

const folder = temporaryFolder("bounds");

function twin(name: string): { golden: Golden; work: StepWork } {
  const golden = readGolden(name);
  const path = join(folder, `${name}.gguf`);
  writeGgufTwin(golden, path);
  return { golden, work: new StepWork(openCheckpoint(path), "f16") };
}

/** Elements of all parameters whose name passes. */
function elements(
  { parameters }: Golden,
  chosen: (name: string, shape: readonly number[]) => boolean,
): number {
  return Object.entries(parameters)
    .filter(([name, shape]) => chosen(name, shape))
    .reduce((sum, [, shape]) => sum + shape.reduce((a, b) => a * b, 1), 0);
}

/** Arithmetic for nothing: reading is all there is. */
const READING = { readBytesPerSecond: () => 1e9, opsPerSecond: () => Number.POSITIVE_INFINITY };
const COMPUTING = {
  readBytesPerSecond: () => Number.POSITIVE_INFINITY,
  opsPerSecond: (arithmetic: string) => (arithmetic === "f32" ? 1e9 : 4e9),
};

const numberOf = ({ config }: Golden, key: string): number => Number(config[key]);

test("decode reads all weights but the table that rows are looked up in, and every sequence's keys and values", () => {
  const { golden, work } = twin("llama2");
  expect(golden.config.tie_word_embeddings).toBe(false);
  const weights = 4 * elements(golden, (name) => !name.includes("embed_tokens"));
  const headDim = numberOf(golden, "hidden_size") / numberOf(golden, "num_attention_heads");
  const kv =
    2 * 2 * numberOf(golden, "num_hidden_layers") * numberOf(golden, "num_key_value_heads") * headDim;
  for (const [depth, sequences] of [
    [0, 1],
    [100, 1],
    [100, 8],
  ] as const) {
    const bound = work.decodeBound(READING, depth, sequences);
    expect(bound.by).toBe("read");
    const bytes = weights + sequences * (depth + 1) * kv;
    expect(bound.tokensPerSecond).toBeCloseTo((sequences * 1e9) / bytes, 6);
  }
});

test("a table that is the output matrix too is read", () => {
  const { golden, work } = twin("smollm2");
  expect(golden.config.tie_word_embeddings).toBe(true);
  const weights = 4 * elements(golden, () => true);
  const bound = work.decodeBound(READING, 0, 1);
  expect(1e9 / bound.tokensPerSecond).toBeGreaterThan(weights);
  expect(1e9 / bound.tokensPerSecond).toBeLessThan(1.05 * weights);
});

test("prefill multiplies every matrix with every token, the output matrix with the last", () => {
  const { golden, work } = twin("llama2");
  const isMatrix = (shape: readonly number[]) => shape.length === 2;
  const body = elements(golden, (name, shape) => isMatrix(shape) && !/embed_tokens|lm_head/.test(name));
  const head = elements(golden, (name) => name.includes("lm_head"));
  const queries = numberOf(golden, "hidden_size");
  const tokens = 10;
  const keys = numberOf(golden, "num_hidden_layers") * ((tokens * (tokens + 1)) / 2);
  const operations = 2 * tokens * body + 2 * head + 4 * keys * queries;
  const bound = work.prefillBound(COMPUTING, tokens);
  expect(bound.by).toBe("f32");
  expect(bound.tokensPerSecond).toBeCloseTo((tokens * 1e9) / operations, 6);
});

test("matrices of blocks are multiplied as 8-bit integers", () => {
  const floats = join(folder, "floats.gguf");
  const blocks = join(folder, "blocks.gguf");
  writeOldLlamaTwin(floats, "f32");
  writeOldLlamaTwin(blocks, "q8_0");
  const [slow, fast] = [floats, blocks].map((path) =>
    new StepWork(openCheckpoint(path), "f16").prefillBound(COMPUTING, 4),
  );
  expect(slow!.by).toBe("f32");
  expect(fast!.by).toBe("int8");
  expect(fast!.tokensPerSecond).toBeGreaterThan(2 * slow!.tokensPerSecond);
});

test("layers with a window read no keys beyond it", () => {
  const { golden, work } = twin("gemma3");
  const window = numberOf(golden, "sliding_window");
  const bytesAt = (depth: number): number => 1e9 / work.decodeBound(READING, depth, 1).tokensPerSecond;
  const near = bytesAt(1) - bytesAt(0);
  const far = bytesAt(window + 101) - bytesAt(window + 100);
  expect(far).toBeGreaterThan(0);
  expect(far).toBeLessThan(0.9 * near);
});
