/** One request inside the engine: its tokens, its blocks and how far each has come. Plain state, no policy. */

import { Adjustments } from "./adjustments.ts";
import { type BlockHasher, type BlockScope, NO_PARENT } from "./block-hash.ts";
import type { GenerateRequest, TokenLogprob } from "./messages.ts";
import { MeanOfRows } from "./pooling.ts";
import { PRIORITY_CLASS } from "./waiting-line.ts";

export type SequenceState = "waiting" | "running" | "finished";

export class Sequence {
  readonly request: GenerateRequest;
  readonly promptLength: number;
  /** Most tokens, prompt and generated: the request's wish, bounded by the context and the pool. */
  readonly lengthMax: number;
  readonly stopTokens: ReadonlySet<number>;
  /** The seed's halves as the sample op reads them. */
  readonly seedLow: number;
  readonly seedHigh: number;
  /** Null when no rule changes this sequence's logits. */
  readonly adjustments: Adjustments | null;
  /** Collects the hidden states of an embedding; null for everything else. */
  readonly pooled: MeanOfRows | null;
  state: SequenceState = "waiting";
  readonly priorityClass: number;
  /** The class it was last admitted with, which it may have risen to; before that its own. */
  rank: number;
  readonly queuedAtMs: number;
  readonly scope: BlockScope;

  /** Prompt and generated tokens; the first `length` entries count. */
  tokens: Int32Array;
  length: number;
  /** Tokens whose keys and values are in the pool; chases `length`. */
  computed = 0;
  /**
   * Prompt positions whose rows were read, or need not be: their log-probabilities are known, `promptLogprobs[scored]`
   * is the last of them; or their hidden states are in `pooled`.
   */
  scored = 0;
  readonly promptLogprobs: (TokenLogprob | null)[] = [];
  promptReported: boolean;
  /** Prompt tokens that came out of the prefix cache at the first admission. */
  cachedTokens = 0;
  preemptions = 0;
  /** Times it was admitted; each time with a new block table. */
  admissions = 0;

  /** The block table, append-only between admissions; the first `blockCount` entries count. */
  blocks = new Int32Array(0);
  blockCount = 0;
  /** Blocks, from the first, that were offered to the prefix cache. */
  registered = 0;
  /** Keys of the full blocks, as far as they were computed; they outlive a preemption. */
  readonly keys: string[] = [];

  /** Links of the queue this sequence is in. */
  previous: Sequence | null = null;
  next: Sequence | null = null;

  constructor(request: GenerateRequest, lengthMax: number, nowMs = 0) {
    const { promptTokens, sampling } = request;
    this.request = request;
    this.promptLength = promptTokens.length;
    this.lengthMax = lengthMax;
    this.priorityClass = PRIORITY_CLASS[request.priority ?? "normal"];
    this.rank = this.priorityClass;
    this.queuedAtMs = nowMs;
    this.scope = request.cacheSalt === undefined ? {} : { tenant: Buffer.from(request.cacheSalt) };
    this.stopTokens = new Set(request.stopTokens);
    this.seedLow = Number(BigInt.asIntN(32, sampling.seed));
    this.seedHigh = Number(BigInt.asIntN(32, sampling.seed >> 32n));
    this.tokens = new Int32Array(Math.min(lengthMax, this.promptLength + 64));
    this.tokens.set(promptTokens);
    this.length = this.promptLength;
    this.promptReported = request.promptLogprobs < 0;
    if (!this.promptReported) this.promptLogprobs.push(null);
    this.pooled = request.embedding === undefined ? null : new MeanOfRows();
    if (request.embedding === "last") this.scored = this.promptLength - 1;
    this.adjustments = isAdjusted(request) ? new Adjustments(sampling, promptTokens) : null;
  }

  get id(): number {
    return this.request.id;
  }

  get generated(): number {
    return this.length - this.promptLength;
  }

  /** False for requests that only score or embed their prompt. */
  get samples(): boolean {
    return this.request.maxTokens > 0;
  }

  get adjustmentCount(): number {
    return this.adjustments === null ? 0 : this.adjustments.count;
  }

  /** One past the last prompt position whose row is to be read; 0 for none. The last token's row scores no token. */
  get scoreEnd(): number {
    if (this.pooled !== null) return this.promptLength;
    return this.request.promptLogprobs < 0 ? 0 : this.promptLength - 1;
  }

  /** Tokens that may come out of the prefix cache: one is always computed, and so is what is to be scored. */
  get matchableTokens(): number {
    return this.scored < this.scoreEnd ? this.scored : this.length - 1;
  }

  append(token: number): void {
    if (this.length === this.tokens.length) {
      const tokens = new Int32Array(Math.min(this.lengthMax, this.tokens.length * 2));
      tokens.set(this.tokens);
      this.tokens = tokens;
    }
    this.tokens[this.length] = token;
    this.length += 1;
    this.adjustments?.add(token);
  }

  /** Computes the keys of all full blocks among the first `tokens` tokens. */
  hashBlocks(hasher: BlockHasher, blockSize: number, tokens: number): void {
    for (let index = this.keys.length; (index + 1) * blockSize <= tokens; index++) {
      const parent = index === 0 ? NO_PARENT : this.keys[index - 1]!;
      this.keys.push(hasher.key(parent, this.tokens, index * blockSize, (index + 1) * blockSize, this.scope));
    }
  }
}

function isAdjusted({ sampling }: GenerateRequest): boolean {
  return (
    sampling.frequencyPenalty !== 0 ||
    sampling.presencePenalty !== 0 ||
    sampling.repetitionPenalty !== 1 ||
    sampling.dry !== undefined ||
    sampling.logitBias.length > 0
  );
}
