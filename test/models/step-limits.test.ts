import { describe, expect, test } from "bun:test";
import type { MistralError } from "../../src/errors.ts";
import { readModelConfig } from "../../src/models/config.ts";
import { familyOf } from "../../src/models/registry.ts";
import { kvTokenBytes, type LimitOptions, planLimits } from "../../src/models/step-limits.ts";
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
const PLENTY = { totalBytes: 1e12, availableBytes: 1e12 };
/** 2 (k, v) * 3 layers * 4 heads * 16 * 2 bytes */
const TOKEN_BYTES = 2 * 3 * 4 * 16 * 2;
const BLOCK_BYTES = TOKEN_BYTES * 32;

/** A machine of which nine tenths, less what is in use, are this many blocks. */
function room(blocks: number) {
  const totalBytes = 1e9;
  return { totalBytes, availableBytes: 0.1 * totalBytes + blocks * BLOCK_BYTES };
}

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
    expect(kvTokenBytes(configWithContext(128), OPTIONS)).toBe(TOKEN_BYTES);
    const long = planLimits(configWithContext(16_384), OPTIONS, PLENTY);
    expect(long).toMatchObject({ contextLength: 16_384, blocksPerSequenceMax: 512, blockCount: 8 * 128 + 1 });
    const short = planLimits(configWithContext(100), OPTIONS, PLENTY);
    expect(short).toMatchObject({ contextLength: 100, blocksPerSequenceMax: 4, blockCount: 8 * 4 + 1 });
    // One sequence of the full context always fits.
    const single = planLimits(configWithContext(16_384), { ...OPTIONS, sequencesMax: 1 }, PLENTY);
    expect(single.blockCount).toBe(512 + 1);
  });

  test("with the pool full, and the weights read, nine tenths of the memory are in use at most", () => {
    const config = configWithContext(4096);
    expect(planLimits(config, OPTIONS, room(200))).toMatchObject({ blockCount: 200, contextLength: 4096 });
    expect(planLimits(config, OPTIONS, room(200), 50 * BLOCK_BYTES).blockCount).toBe(150);
  });

  test("a fraction that is asked for is filled", () => {
    const config = configWithContext(1024);
    const memory = { totalBytes: 1000 * BLOCK_BYTES, availableBytes: 900 * BLOCK_BYTES };
    const half = { ...OPTIONS, kvMemoryFraction: 0.5 };
    expect(planLimits(config, half, memory, 60 * BLOCK_BYTES).blockCount).toBe(500 - 100 - 60);
    expect(failure(() => planLimits(config, half, memory, 390 * BLOCK_BYTES)).code).toBe(
      "insufficient_memory",
    );
    // Less in use than nothing is nothing.
    expect(failure(() => planLimits(config, half, memory, 900 * BLOCK_BYTES)).message).toContain("(0 bytes)");
  });

  test("without paging each sequence has one block as long as the context", () => {
    const config = configWithContext(1000);
    const off = { ...OPTIONS, pagedAttention: false };
    const slots = { blockSize: 1000, blocksPerSequenceMax: 1, contextLength: 1000 };
    expect(planLimits(config, off, PLENTY)).toMatchObject({ ...slots, blockCount: 8 + 1 });
    const slotBytes = 1000 * TOKEN_BYTES;
    // Less memory: fewer sequences at a time, but each as long.
    const four = planLimits(config, { ...off, kvMemoryBytes: 4.5 * slotBytes }, PLENTY);
    expect(four).toMatchObject({ ...slots, blockCount: 4 });
    // More than every sequence can use is not taken.
    expect(planLimits(config, { ...off, kvMemoryBytes: 50 * slotBytes }, PLENTY).blockCount).toBe(9);
    const short = planLimits(config, { ...off, contextLengthMax: 77 }, PLENTY);
    expect(short).toMatchObject({ blockSize: 77, contextLength: 77, blockCount: 9 });
    const refused = failure(() => planLimits(config, { ...off, kvMemoryBytes: 1.5 * slotBytes }, PLENTY));
    expect(refused.message).toContain(`(${2 * slotBytes} bytes)`);
    expect(refused.message).toContain("A context of 750 tokens would fit (--pa-context-len 750)");
    expect(planLimits(configWithContext(100_000), off, room(20))).toMatchObject({
      contextLength: (20 * 32) / 2,
      blockCount: 2,
    });
  });

  test("one sequence of the full context always has room for every rule of sampling", () => {
    const config = { ...configWithContext(131_072), vocabularySize: 151_936 };
    expect(planLimits(config, OPTIONS, PLENTY).adjustmentsMax).toBeGreaterThanOrEqual(3 * 131_072);
  });

  test("the model's own context is shortened to what fits; one that was asked for is not", () => {
    const free = room(50);
    const limits = planLimits(configWithContext(4096), OPTIONS, free);
    expect(limits).toMatchObject({ contextLength: 49 * 32, blocksPerSequenceMax: 49, blockCount: 50 });
    const asked = failure(() =>
      planLimits(configWithContext(4096), { ...OPTIONS, contextLengthMax: 4096 }, free),
    );
    expect(asked.code).toBe("insufficient_memory");
    expect(asked.message).toContain(`(${129 * BLOCK_BYTES} bytes), available are`);
    expect(asked.message).toContain(`A context of ${49 * 32} tokens would fit (--pa-context-len ${49 * 32})`);
    expect(failure(() => planLimits(configWithContext(4096), OPTIONS, room(8))).code).toBe(
      "insufficient_memory",
    );
  });

  test("a budget is used to the last block, and must hold one sequence and the null block", () => {
    const config = configWithContext(1024);
    const with33 = planLimits(config, { ...OPTIONS, kvMemoryBytes: 33 * BLOCK_BYTES }, PLENTY);
    expect(with33).toMatchObject({ contextLength: 1024, blockCount: 33 });
    expect(planLimits(config, { ...OPTIONS, kvMemoryBytes: 5000 * BLOCK_BYTES }, room(0)).blockCount).toBe(
      5000,
    );
    const error = failure(() =>
      planLimits(config, { ...OPTIONS, kvMemoryBytes: 33 * BLOCK_BYTES - 1 }, PLENTY),
    );
    expect(error.code).toBe("insufficient_memory");
    expect(error.message).toContain(`${33 * BLOCK_BYTES} bytes`);
    expect(error.message).toContain(`${33 * BLOCK_BYTES - 1} bytes`);
  });

  test("memory that is taken at once: nine tenths of it, but never the last half gigabyte", () => {
    const config = configWithContext(1024);
    const committed = { ...OPTIONS, isCommitted: true };
    const margin = 512 * 2 ** 20;
    const totalBytes = 100 * margin;
    const memory = { totalBytes, availableBytes: 0.5 * totalBytes };
    const slots = (bytes: number) => Math.floor(Math.floor(bytes) / TOKEN_BYTES / 32);
    expect(planLimits(config, committed, memory).blockCount).toBe(slots(0.4 * totalBytes));
    expect(planLimits(config, committed, memory, margin).blockCount).toBe(slots(0.4 * totalBytes - margin));
    const all = { ...committed, kvMemoryFraction: 1 };
    // Two hundredths of so much memory are more than half a gigabyte.
    expect(planLimits(config, all, memory).blockCount).toBe(slots(0.48 * totalBytes));
    const small = { totalBytes: 4 * margin, availableBytes: 4 * margin };
    expect(planLimits(config, all, small).blockCount).toBe(slots(3 * margin));
    // A context that is asked for says what is needed.
    expect(planLimits(config, { ...committed, contextLengthMax: 512 }, memory).blockCount).toBe(8 * 16 + 1);
    const exact = { ...committed, kvMemoryBytes: 3 * margin };
    expect(planLimits(config, exact, small).blockCount).toBe(slots(3 * margin));
    const refused = failure(() => planLimits(config, { ...exact, kvMemoryBytes: 3 * margin + 1 }, small));
    expect(refused.code).toBe("insufficient_memory");
    expect(refused.message).toContain(
      `(${3 * margin + 1} bytes), free for it are 1.611 GB (${3 * margin} bytes)`,
    );
    expect(refused.message).toContain("--pa-memory-mb 1536");
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
});
