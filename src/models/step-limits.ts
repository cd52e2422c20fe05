/**
 * Decides the limits of a step: the context that is served and the size of the KV pool. The pool is memory that
 * is only touched when it is used, so a generous one costs nothing until then.
 */

import { readFileSync } from "node:fs";
import { freemem } from "node:os";
import { bytesOfElements } from "../backend/dtype.ts";
import { MistralError } from "../errors.ts";
import type { ModelConfig } from "./config.ts";
import type { StepLimits } from "./step.ts";

export type KvCacheType = "f32" | "f16" | "bf16";

export interface LimitOptions {
  readonly sequencesMax: number;
  readonly tokensMax: number;
  /** Tokens of a sequence; the model's own limit when not given. */
  readonly contextLengthMax?: number | undefined;
  readonly kvCacheType: KvCacheType;
  /** Bytes of the KV pool; chosen from the free memory when not given. */
  readonly kvMemoryBytes?: number | undefined;
  /** Tokens in a KV block. */
  readonly blockSize: number;
}

/** Share of the free memory that the KV pool may take when no budget is given. */
const KV_SHARE_OF_FREE_MEMORY = 0.25;
/** The default pool holds every sequence at this length, or at the context length if that is shorter. */
const DEFAULT_TOKENS_PER_SEQUENCE = 4096;
/** A context below this serves nobody: rather refuse than shrink further. */
const CONTEXT_LENGTH_MIN = 256;
const ROWS_MIN = 64;
const TOP_LOGPROBS_MAX = 20;
/** Room for the penalties and biases of a step: per sequence, and at least for a few long ones. */
const ADJUSTMENTS_PER_SEQUENCE = 4096;
const ADJUSTMENTS_MIN = 65_536;
/** Slots of the pool are numbered by i32. */
const SLOTS_MAX = 2 ** 31 - 1;

/** Bytes of one KV block, keys and values of all layers. */
export function kvBlockBytes(config: ModelConfig, { kvCacheType, blockSize }: LimitOptions): number {
  const elements = 2 * config.layers.length * config.keyValueHeads * config.headDim * blockSize;
  return bytesOfElements(kvCacheType, elements);
}

/** Memory that can be had without swapping, in bytes. */
export function availableMemoryBytes(): number {
  try {
    const match = /^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync("/proc/meminfo", "utf8"));
    if (match !== null) return Number(match[1]) * 1024;
  } catch {
    // Not Linux: the operating system's own figure.
  }
  return freemem();
}

function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(3)} GB`;
}

function checkPositive(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) {
    throw new MistralError("invalid_configuration", `${name} is ${value}; it must be a positive integer`, {
      parameter: name,
    });
  }
}

function servedContext(config: ModelConfig, options: LimitOptions): number {
  const asked = options.contextLengthMax;
  if (asked === undefined) return config.contextLength;
  checkPositive("contextLengthMax", asked);
  if (asked > config.contextLength) {
    throw new MistralError(
      "invalid_configuration",
      `a context of ${asked} tokens was asked for, but the model was made for ${config.contextLength}`,
      { parameter: "contextLengthMax" },
    );
  }
  return asked;
}

/** Refuses a pool that cannot hold one sequence of this length besides the null block. */
function refuseSmallPool(contextLength: number, needed: number, available: number, isBudget: boolean): never {
  const advice = isBudget
    ? "Raise the budget, or serve a shorter context"
    : "Serve a shorter context, or free memory";
  throw new MistralError(
    "insufficient_memory",
    `the KV cache of one sequence of ${contextLength} tokens needs ${gigabytes(needed)} (${needed} bytes), ` +
      `available are ${gigabytes(available)} (${available} bytes). ${advice}`,
    { parameter: "kvMemoryBytes" },
  );
}

/**
 * The limits for a model. With a budget, the pool is as large as the budget and must hold one sequence of the
 * full context. Without, it holds `sequencesMax` sequences of 4096 tokens (or one of the full context, if that is
 * more) within a quarter of the free memory; if not even one sequence of the model's own context fits in that
 * quarter, the context served is shortened to what fits, unless it was asked for explicitly.
 */
export function planLimits(
  config: ModelConfig,
  options: LimitOptions,
  freeBytes: number = availableMemoryBytes(),
): StepLimits {
  const { blockSize, sequencesMax, tokensMax, kvMemoryBytes } = options;
  checkPositive("blockSize", blockSize);
  checkPositive("sequencesMax", sequencesMax);
  checkPositive("tokensMax", tokensMax);
  const blockBytes = kvBlockBytes(config, options);
  const blocksFor = (tokens: number): number => Math.ceil(tokens / blockSize);
  const slotBlocksMax = Math.floor(SLOTS_MAX / blockSize);
  const isBudget = kvMemoryBytes !== undefined;
  const budget = kvMemoryBytes ?? Math.floor(freeBytes * KV_SHARE_OF_FREE_MEMORY);
  const affordable = Math.min(Math.floor(budget / blockBytes), slotBlocksMax);

  let contextLength = servedContext(config, options);
  if (blocksFor(contextLength) + 1 > affordable) {
    const shortened = (affordable - 1) * blockSize;
    const mayShorten = !isBudget && options.contextLengthMax === undefined && shortened >= CONTEXT_LENGTH_MIN;
    if (!mayShorten) {
      refuseSmallPool(contextLength, (blocksFor(contextLength) + 1) * blockBytes, budget, isBudget);
    }
    contextLength = shortened;
  }
  const perSequence = blocksFor(Math.min(contextLength, DEFAULT_TOKENS_PER_SEQUENCE));
  const wanted = Math.max(sequencesMax * perSequence, blocksFor(contextLength)) + 1;
  return {
    tokensMax,
    sequencesMax,
    rowsMax: Math.max(sequencesMax, ROWS_MIN),
    adjustmentsMax: Math.max(
      ADJUSTMENTS_MIN,
      sequencesMax * Math.min(ADJUSTMENTS_PER_SEQUENCE, config.vocabularySize),
    ),
    topLogprobsMax: Math.min(TOP_LOGPROBS_MAX, config.vocabularySize),
    blockSize,
    blockCount: isBudget ? affordable : Math.min(wanted, affordable),
    blocksPerSequenceMax: blocksFor(contextLength),
    vocabularySize: config.vocabularySize,
    contextLength,
  };
}
