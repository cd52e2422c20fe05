/**
 * Decides the limits of a step: the context that is served and the size of the KV pool. The pool is memory that
 * is only touched when it is used, so a generous one costs nothing until then.
 */

import { bytesOfElements } from "../backend/dtype.ts";
import { MistralError } from "../errors.ts";
import type { ModelConfig } from "./config.ts";
import { type HostMemory, hostMemory } from "./host-memory.ts";
import type { StepLimits } from "./step.ts";

export type KvCacheType = "f32" | "f16" | "bf16" | "f8e4m3";

export interface LimitOptions {
  readonly sequencesMax: number;
  readonly tokensMax: number;
  /** Tokens of a sequence; the model's own limit when not given. */
  readonly contextLengthMax?: number | undefined;
  readonly kvCacheType: KvCacheType;
  /** Bytes of the KV pool. */
  readonly kvMemoryBytes?: number | undefined;
  /** Share of all memory that may be in use when the pool is full. At most one of this and `kvMemoryBytes`. */
  readonly kvMemoryFraction?: number | undefined;
  /** Tokens in a KV block. */
  readonly blockSize: number;
  /**
   * The pool's memory is taken at once, as a device's is: a pool that nothing is said about takes all it may, unless
   * a context was asked for, and no pool takes what is not free. False when not given.
   */
  readonly isCommitted?: boolean | undefined;
  /** False: a block holds a sequence of any length, `blockSize` counts for nothing. True when not given. */
  readonly pagedAttention?: boolean | undefined;
}

/** Share of all memory that may be in use when the pool is full, when nothing is said about it. */
const MEMORY_FRACTION = 0.9;
/** What is left free of memory that is taken at once: this share of all of it, or at least so many bytes. */
const MARGIN_FRACTION = 0.02;
const MARGIN_BYTES_MIN = 512 * 2 ** 20;
/** A pool that nothing is said about holds every sequence at this length, or at the context if that is shorter. */
const DEFAULT_TOKENS_PER_SEQUENCE = 4096;
/** A context below this serves nobody: rather refuse than shrink further. */
const CONTEXT_LENGTH_MIN = 256;
const ROWS_MIN = 64;
const TOP_LOGPROBS_MAX = 20;
/** Room for the penalties and biases of a step: per sequence, at least for a few long ones ... */
const ADJUSTMENTS_PER_SEQUENCE = 4096;
const ADJUSTMENTS_MIN = 65_536;
/** ... and always for one of the full context with every rule there is: each touches its tokens once ... */
const ADJUSTING_RULES = 3;
/** ... and as many tokens besides as a request may bias. */
const BIASES_MAX = 1024;
/** Slots of the pool are numbered by i32. */
const SLOTS_MAX = 2 ** 31 - 1;

/** Bytes of the keys and values of one token in all layers. */
export function kvTokenBytes(config: ModelConfig, { kvCacheType }: LimitOptions): number {
  return bytesOfElements(kvCacheType, 2 * config.layers.length * config.keyValueHeads * config.headDim);
}

/** What the pool may take, and whether somebody asked for that. */
interface Budget {
  readonly bytes: number;
  readonly isAsked: boolean;
  /** Whether the pool takes all of it, or no more than the sequences need. */
  readonly isFilled: boolean;
}

/**
 * The limits for a model whose weights take `weightBytes`. The pool is as large as the budget that was asked for, or
 * as the part of it that can ever be used. Without one it holds `sequencesMax` sequences of 4096 tokens (or one of
 * the full context, if that is more), within nine tenths of the memory less what is in use. Every pool must hold one
 * sequence of the full context; if the memory does not, the model's own context is shortened to what fits, unless a
 * context or a budget was asked for.
 *
 * Where memory is taken at once (`isCommitted`), the pool gets the nine tenths whole, less what is in use.
 *
 * Without paging, a block is as long as the context and a sequence has one: the same machinery, other numbers.
 */
export function planLimits(
  config: ModelConfig,
  options: LimitOptions,
  memory: HostMemory = hostMemory(),
  weightBytes = 0,
): StepLimits {
  const { sequencesMax, tokensMax } = options;
  checkPositive("blockSize", options.blockSize);
  checkPositive("sequencesMax", sequencesMax);
  checkPositive("tokensMax", tokensMax);
  const isPaged = options.pagedAttention ?? true;
  const tokenBytes = kvTokenBytes(config, options);
  const budget = budgetOf(options, memory, weightBytes);
  const slots = Math.min(Math.floor(budget.bytes / tokenBytes), SLOTS_MAX);

  const contextLength = fittingContext(config, options, slots, budget);
  const blockSize = isPaged ? options.blockSize : contextLength;
  const blocksFor = (tokens: number): number => Math.ceil(tokens / blockSize);
  const affordable = Math.floor(slots / blockSize);
  const perSequence = blocksFor(Math.min(contextLength, DEFAULT_TOKENS_PER_SEQUENCE));
  const useful = sequencesMax * blocksFor(contextLength) + 1;
  const wanted = Math.max(sequencesMax * perSequence, blocksFor(contextLength)) + 1;
  return {
    tokensMax,
    sequencesMax,
    rowsMax: Math.max(sequencesMax, ROWS_MIN),
    adjustmentsMax: Math.max(
      ADJUSTMENTS_MIN,
      sequencesMax * Math.min(ADJUSTMENTS_PER_SEQUENCE, config.vocabularySize),
      ADJUSTING_RULES * Math.min(contextLength + BIASES_MAX, config.vocabularySize),
    ),
    topLogprobsMax: Math.min(TOP_LOGPROBS_MAX, config.vocabularySize),
    blockSize,
    // Without paging a block that no sequence can have is of no use; with it, it keeps prefixes.
    blockCount: Math.min(affordable, !isPaged ? useful : budget.isFilled ? affordable : wanted),
    blocksPerSequenceMax: blocksFor(contextLength),
    vocabularySize: config.vocabularySize,
    contextLength,
  };
}

function budgetOf(options: LimitOptions, memory: HostMemory, weightBytes: number): Budget {
  const { kvMemoryBytes, kvMemoryFraction, isCommitted = false } = options;
  const freeBytes = isCommitted
    ? Math.max(0, memory.availableBytes - weightBytes - committedMargin(memory))
    : Number.POSITIVE_INFINITY;
  if (kvMemoryBytes !== undefined) {
    if (kvMemoryBytes > freeBytes) throw tooLargePool(kvMemoryBytes, freeBytes);
    return { bytes: kvMemoryBytes, isAsked: true, isFilled: true };
  }
  const usedBytes = memory.totalBytes - memory.availableBytes + weightBytes;
  const isAsked = kvMemoryFraction !== undefined;
  const bytes = memory.totalBytes * (kvMemoryFraction ?? MEMORY_FRACTION) - usedBytes;
  return {
    bytes: Math.max(0, Math.floor(Math.min(bytes, freeBytes))),
    isAsked,
    isFilled: isAsked || (isCommitted && options.contextLengthMax === undefined),
  };
}

/** What stays free of memory that is taken at once: for what the driver needs while it runs, and for graphs. */
export function committedMargin({ totalBytes }: HostMemory): number {
  return Math.max(MARGIN_BYTES_MIN, Math.ceil(totalBytes * MARGIN_FRACTION));
}

function tooLargePool(wantedBytes: number, freeBytes: number): MistralError {
  const megabytes = Math.floor(freeBytes / 2 ** 20);
  return new MistralError(
    "insufficient_memory",
    `the KV cache was to have ${gigabytes(wantedBytes)} (${wantedBytes} bytes), free for it are ${gigabytes(freeBytes)} (${freeBytes} bytes). At most --pa-memory-mb ${megabytes} fits`,
    { parameter: "kvMemoryBytes" },
  );
}

/** The context to serve with a pool of so many slots, one block of which is the null block. */
function fittingContext(config: ModelConfig, options: LimitOptions, slots: number, budget: Budget): number {
  const contextLength = servedContext(config, options);
  const isPaged = options.pagedAttention ?? true;
  const { blockSize } = options;
  const needed = isPaged ? (Math.ceil(contextLength / blockSize) + 1) * blockSize : 2 * contextLength;
  if (needed <= slots) return contextLength;
  const fitting = Math.max(
    0,
    isPaged ? (Math.floor(slots / blockSize) - 1) * blockSize : Math.floor(slots / 2),
  );
  const isAsked = budget.isAsked || options.contextLengthMax !== undefined;
  if (!isAsked && fitting >= CONTEXT_LENGTH_MIN) return fitting;
  const neededBytes = needed * kvTokenBytes(config, options);
  const advice =
    fitting < 1
      ? "Not even a sequence of one block fits; give the KV cache more memory"
      : `A context of ${fitting} tokens would fit (--pa-context-len ${fitting})`;
  throw new MistralError(
    "insufficient_memory",
    `the KV cache of one sequence of ${contextLength} tokens needs ${gigabytes(neededBytes)} (${neededBytes} bytes), ` +
      `available are ${gigabytes(budget.bytes)} (${budget.bytes} bytes). ${advice}`,
    { parameter: "kvMemoryBytes" },
  );
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

function checkPositive(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) {
    throw new MistralError("invalid_configuration", `${name} is ${value}; it must be a positive integer`, {
      parameter: name,
    });
  }
}

/** For messages. */
export function gigabytes(bytes: number): string {
  return `${(bytes / 1e9).toFixed(3)} GB`;
}
