/** Loading from every stored type and place, the limits that follow from memory, and what happens when it fails. */

import { afterAll, beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { MistralError } from "../../src/errors.ts";
import { formatMemoryPlan } from "../../src/graph/memory-plan.ts";
import { loadModel, type ModelLoadOptions } from "../../src/models/load-model.ts";
import type { LoadedModel } from "../../src/models/loaded-model.ts";
import {
  type Golden,
  parameterValues,
  readGolden,
  writeGgufTwin,
  writeHuggingFace,
} from "../reference/tiny-checkpoint.ts";
import { type SafetensorsTensor, writeSafetensors } from "../support/write-safetensors.ts";
import { argmax, runStep } from "./run-sequence.ts";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "mistral-load-"));
});
afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

const OPTIONS: Omit<ModelLoadOptions, "path"> = {
  threads: 1,
  sequencesMax: 2,
  tokensMax: 64,
  kvCacheType: "f32",
  kvMemoryBytes: 16 << 20,
  blockSize: 16,
  mmap: true,
};

async function logitsOf(
  path: string,
  golden: Golden,
  changes: Partial<ModelLoadOptions> = {},
): Promise<Float32Array[]> {
  const model = await loadModel({ ...OPTIONS, path, ...changes });
  try {
    return runStep(model, [{ sequence: 0, tokens: golden.tokens, start: 0 }])[0]!;
  } finally {
    model.close();
  }
}

/** The largest difference of any row, over the row's largest logit. */
function relativeError(actual: readonly Float32Array[], expected: readonly Float32Array[]): number {
  return Math.max(
    ...expected.map((row, index) => {
      const worst = Math.max(...row.map((value, column) => Math.abs(value - actual[index]![column]!)));
      return worst / Math.max(...row.map(Math.abs));
    }),
  );
}

async function failure(action: Promise<unknown>): Promise<MistralError> {
  return action.then(
    () => {
      throw new Error("it did not fail");
    },
    (error) => error as MistralError,
  );
}

/** The upper half of each f32: bf16 by truncation, which is exact for values that were truncated before. */
function bf16(values: Float32Array): { stored: Uint8Array; values: Float32Array } {
  const bits = new Uint32Array(values.buffer);
  const upper = Uint16Array.from(bits, (word) => word >>> 16);
  const back = new Float32Array(Uint32Array.from(upper, (half) => half * 65_536).buffer);
  return { stored: new Uint8Array(upper.buffer), values: back };
}

function f16(values: Float32Array): { stored: Uint8Array; values: Float32Array } {
  const halves = new Float16Array(values);
  return { stored: new Uint8Array(halves.buffer), values: new Float32Array(halves) };
}

function writeTensors(name: string, golden: Golden, tensors: readonly SafetensorsTensor[]): string {
  const path = join(folder, name);
  writeHuggingFace(golden, path);
  writeSafetensors(join(path, "model.safetensors"), tensors);
  return path;
}

describe("stored types and places", () => {
  // Norms and biases are vectors, which the ops read as f32 whatever the file has.
  for (const [dtype, convert] of [
    ["bf16", bf16],
    ["f16", f16],
  ] as const) {
    test(`${dtype} weights give what the same values give as f32`, async () => {
      const golden = readGolden("qwen2");
      const small: SafetensorsTensor[] = [];
      const wide: SafetensorsTensor[] = [];
      for (const [name, shape] of Object.entries(golden.parameters)) {
        const { stored, values } = convert(parameterValues(golden, name));
        small.push({ name, shape, dtype, data: stored });
        wide.push({ name, shape, dtype: "f32", data: new Uint8Array(values.buffer) });
      }
      const expected = await logitsOf(writeTensors(`${dtype}-wide`, golden, wide), golden);
      const actual = await logitsOf(writeTensors(dtype, golden, small), golden);
      expect(relativeError(actual, expected)).toBeLessThan(1e-5);
    });
  }

  test("tensors that do not start at a multiple of their elements are read all the same", async () => {
    const golden = readGolden("qwen2");
    const tensors = Object.entries(golden.parameters).map(([name, shape]) => ({
      name,
      shape,
      dtype: "f32" as const,
      data: new Uint8Array(parameterValues(golden, name).buffer),
    }));
    const shift = { name: "shift", shape: [1], dtype: "f16" as const, data: new Uint8Array(2) };
    const expected = await logitsOf(writeTensors("aligned", golden, tensors), golden);
    expect(await logitsOf(writeTensors("shifted", golden, [shift, ...tensors]), golden)).toEqual(expected);
  });

  test("a cache of fewer bytes stays close", async () => {
    const golden = readGolden("llama3");
    const path = join(folder, "caches");
    writeHuggingFace(golden, path);
    const expected = await logitsOf(path, golden);
    for (const [kvCacheType, tolerance] of [
      ["f16", 2e-3],
      ["bf16", 2e-2],
      // Three bits behind the point, where bf16 has seven: sixteen times as far.
      ["f8e4m3", 16 * 2e-2],
    ] as const) {
      const error = relativeError(await logitsOf(path, golden, { kvCacheType }), expected);
      expect(error).toBeLessThan(tolerance);
      expect(error).toBeGreaterThan(0);
    }
  });
});

describe("a loaded model", () => {
  async function use(
    changes: Partial<ModelLoadOptions>,
    action: (model: LoadedModel) => void,
  ): Promise<void> {
    const golden = readGolden("smollm2");
    const path = join(folder, "smollm2");
    writeHuggingFace(golden, path);
    const model = await loadModel({ ...OPTIONS, path, ...changes });
    try {
      action(model);
    } finally {
      model.close();
    }
  }

  test("samples greedily the largest of its logits, and tells about itself", async () => {
    const { tokens } = readGolden("smollm2");
    const progress: number[] = [];
    await use({ onProgress: (done, total) => progress.push(done / total) }, (model) => {
      const [rows] = runStep(model, [{ sequence: 0, tokens, start: 0 }]);
      expect([...model.outputs.tokens.subarray(0, tokens.length)]).toEqual(rows!.map(argmax));
      expect(model.info).toMatchObject({
        family: "llama",
        architecture: "LlamaForCausalLM",
        layers: 3,
        contextLength: 128,
        vocabularySize: 160,
        endOfTextIds: [2],
        threads: 1,
      });
      expect(model.info.loadSeconds).toBeGreaterThan(model.info.mapSeconds);
      expect(model.info.weightBytes).toBe(
        4 *
          Object.values(readGolden("smollm2").parameters).reduce(
            (sum, s) => sum + s.reduce((a, b) => a * b),
            0,
          ),
      );
      const plan = formatMemoryPlan(model.memoryPlan);
      expect(plan).toContain("layers.2.qkv");
      expect(plan).toContain(`total ${model.info.activationBytes} bytes`);
    });
    expect(progress.at(-1)).toBe(1);
  });

  test("a step without rows of logits stores keys and values and computes no more", async () => {
    const { tokens } = readGolden("smollm2");
    await use({}, (model) => {
      const whole = runStep(model, [{ sequence: 0, tokens, start: 0 }])[0]!;
      const part = { sequence: 1, tokens: tokens.slice(0, 39), start: 0 };
      expect(runStep(model, [part], "none")).toEqual([[]]);
      const [last] = runStep(model, [{ sequence: 1, tokens: tokens.slice(39), start: 39 }]);
      expect(last![0]).toEqual(whole[39]!);
    });
  });

  test("closing twice is closing once", async () => {
    await use({}, (model) => model.close());
  });
});

describe("what cannot be loaded is refused by name", () => {
  const golden = readGolden("qwen3");

  test("missing and misshapen tensors are listed", async () => {
    const path = join(folder, "holes");
    writeHuggingFace({ ...golden, parameters: {} }, path);
    const all = await failure(loadModel({ ...OPTIONS, path }));
    expect(all.code).toBe("invalid_model_file");
    expect(all.message).toContain("model.embed_tokens.weight [160, 64] is missing");
    expect(all.message).toMatch(/and \d+ more$/);

    const parameters: Record<string, readonly number[]> = { ...golden.parameters };
    delete parameters["model.layers.1.self_attn.k_norm.weight"];
    parameters["model.norm.weight"] = [63];
    writeHuggingFace({ ...golden, parameters }, path);
    const two = await failure(loadModel({ ...OPTIONS, path }));
    expect(two.message).toContain("model.layers.1.self_attn.k_norm.weight [32] is missing");
    expect(two.message).toContain("model.norm.weight is [63], the configuration needs [64]");
  });

  test("a GGUF file with divisors of the wrong length", async () => {
    const path = join(folder, "divisors.gguf");
    const llama3 = readGolden("llama3");
    const rope = llama3.config.rope_parameters as Record<string, unknown>;
    writeGgufTwin({ ...llama3, config: { ...llama3.config, head_dim: 16, rope_parameters: rope } }, path);
    const bytes = await Bun.file(path).bytes();
    // The length of rope_freqs.weight follows its name and its number of dimensions.
    const name = Buffer.from(bytes).indexOf("rope_freqs.weight");
    bytes[name + "rope_freqs.weight".length + 4] = 7;
    writeFileSync(path, bytes);
    const error = await failure(loadModel({ ...OPTIONS, path }));
    expect(error.code).toBe("invalid_model_file");
    expect(error.message).toContain("rope_freqs.weight is [7], not [8]");
  });

  test("a budget that cannot hold one sequence", async () => {
    const path = join(folder, "budget");
    writeHuggingFace(golden, path);
    const error = await failure(loadModel({ ...OPTIONS, path, kvMemoryBytes: 1000 }));
    expect(error.code).toBe("insufficient_memory");
    expect(error.message).toContain("one sequence of 128 tokens needs");
    expect(error.message).toContain("(1000 bytes)");
  });

  test("a failed load frees what it took", async () => {
    const path = join(folder, "free");
    writeHuggingFace(golden, path);
    for (let i = 0; i < 50; i++) {
      const error = await failure(loadModel({ ...OPTIONS, path, threads: 1, instructionSet: "z80" }));
      expect(error.code).toBe("invalid_configuration");
    }
    await logitsOf(path, golden);
  });
});
