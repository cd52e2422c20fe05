import { describe, expect, test } from "bun:test";
import type { MistralError } from "../../src/errors.ts";
import { readModelConfig } from "../../src/models/config.ts";
import { familyOf } from "../../src/models/registry.ts";
import {
  availableMemoryBytes,
  kvBlockBytes,
  type LimitOptions,
  planLimits,
} from "../../src/models/step-limits.ts";
import type { Checkpoint } from "../../src/weights/types.ts";
import { readGolden } from "../reference/tiny-checkpoint.ts";

function configWithContext(contextLength: number) {
  const checkpoint: Checkpoint = {
    files: [],
    tensors: new Map(),
    format: "safetensors",
    folder: "m",
    config: { ...readGolden("llama2").config, max_position_embeddings: contextLength },
  };
  return readModelConfig(checkpoint, familyOf(checkpoint));
}

const OPTIONS: LimitOptions = { sequencesMax: 8, tokensMax: 512, kvCacheType: "f16", blockSize: 32 };
const PLENTY = 1e12;
/** 2 (k, v) * 3 layers * 4 heads * 16 * 32 tokens * 2 bytes */
const BLOCK_BYTES = 2 * 3 * 4 * 16 * 32 * 2;

function failure(action: () => unknown): MistralError {
  try {
    action();
  } catch (error) {
    return error as MistralError;
  }
  throw new Error("it did not fail");
}

describe("limits of a step", () => {
  test("with plenty of memory every sequence has 4096 tokens, or the context if that is shorter", () => {
    expect(kvBlockBytes(configWithContext(128), OPTIONS)).toBe(BLOCK_BYTES);
    const long = planLimits(configWithContext(16_384), OPTIONS, PLENTY);
    expect(long).toMatchObject({ contextLength: 16_384, blocksPerSequenceMax: 512, blockCount: 8 * 128 + 1 });
    const short = planLimits(configWithContext(100), OPTIONS, PLENTY);
    expect(short).toMatchObject({ contextLength: 100, blocksPerSequenceMax: 4, blockCount: 8 * 4 + 1 });
    // One sequence of the full context always fits.
    const single = planLimits(configWithContext(16_384), { ...OPTIONS, sequencesMax: 1 }, PLENTY);
    expect(single.blockCount).toBe(512 + 1);
  });

  test("the pool takes at most a quarter of the free memory", () => {
    const limits = planLimits(configWithContext(4096), OPTIONS, 4 * 200 * BLOCK_BYTES);
    expect(limits.blockCount).toBe(200);
    expect(limits.contextLength).toBe(4096);
  });

  test("the model's own context is shortened to what fits; one that was asked for is not", () => {
    const free = 4 * 50 * BLOCK_BYTES;
    const limits = planLimits(configWithContext(4096), OPTIONS, free);
    expect(limits).toMatchObject({ contextLength: 49 * 32, blocksPerSequenceMax: 49, blockCount: 50 });
    const asked = failure(() =>
      planLimits(configWithContext(4096), { ...OPTIONS, contextLengthMax: 4096 }, free),
    );
    expect(asked.code).toBe("insufficient_memory");
    expect(asked.message).toContain(`(${129 * BLOCK_BYTES} bytes), available are`);
    expect(failure(() => planLimits(configWithContext(4096), OPTIONS, 4 * 8 * BLOCK_BYTES)).code).toBe(
      "insufficient_memory",
    );
  });

  test("a budget is used to the last block, and must hold one sequence and the null block", () => {
    const config = configWithContext(1024);
    const with33 = planLimits(config, { ...OPTIONS, kvMemoryBytes: 33 * BLOCK_BYTES }, PLENTY);
    expect(with33).toMatchObject({ contextLength: 1024, blockCount: 33 });
    expect(planLimits(config, { ...OPTIONS, kvMemoryBytes: 5000 * BLOCK_BYTES }, 1).blockCount).toBe(5000);
    const error = failure(() =>
      planLimits(config, { ...OPTIONS, kvMemoryBytes: 33 * BLOCK_BYTES - 1 }, PLENTY),
    );
    expect(error.code).toBe("insufficient_memory");
    expect(error.message).toContain(`${33 * BLOCK_BYTES} bytes`);
    expect(error.message).toContain(`${33 * BLOCK_BYTES - 1} bytes`);
  });

  test("slots stay within 32 bits", () => {
    const limits = planLimits(configWithContext(1024), { ...OPTIONS, kvMemoryBytes: 1e15 }, PLENTY);
    expect(limits.blockCount * limits.blockSize).toBeLessThan(2 ** 31);
  });

  test("a context beyond the model's is refused, and so are numbers that make no sense", () => {
    const config = configWithContext(128);
    expect(
      failure(() => planLimits(config, { ...OPTIONS, contextLengthMax: 129 }, PLENTY)).message,
    ).toContain("a context of 129 tokens was asked for, but the model was made for 128");
    for (const change of [
      { blockSize: 0 },
      { sequencesMax: 1.5 },
      { tokensMax: -1 },
      { contextLengthMax: 0 },
    ]) {
      expect(failure(() => planLimits(config, { ...OPTIONS, ...change }, PLENTY)).code).toBe(
        "invalid_configuration",
      );
    }
  });

  test("this machine has some memory", () => {
    expect(availableMemoryBytes()).toBeGreaterThan(1e7);
  });
});
