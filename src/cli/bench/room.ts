/** Whether a loaded model can hold the work of a benchmark. */

import { MistralError } from "../../errors.ts";
import type { StepLimits } from "../../models/step.ts";
import { formatCount } from "../units.ts";

export interface NeededRoom {
  readonly sequences: number;
  /** Of each sequence. */
  readonly tokens: number;
  /** KV blocks of all, the null block included. */
  readonly blocks: number;
  /** The flags that ask for it, in words. */
  readonly what: string;
}

/** Refuses work that the model cannot hold, before anything runs. Throws MistralError that says what to change. */
export function requireRoom(limits: StepLimits, { sequences, tokens, blocks, what }: NeededRoom): void {
  if (tokens > limits.contextLength) {
    throw new MistralError(
      "invalid_configuration",
      `${what} make ${formatCount(tokens)} tokens, more than the context of ${formatCount(limits.contextLength)}`,
      { parameter: "--prompt-len" },
    );
  }
  if (blocks > limits.blockCount) {
    throw new MistralError(
      "insufficient_memory",
      `${sequences} sequences of ${formatCount(tokens)} tokens need ${formatCount(blocks)} KV blocks of ${limits.blockSize} tokens, the pool has ${formatCount(limits.blockCount)}; raise --pa-memory-mb or lower --batch`,
      { parameter: "--batch" },
    );
  }
}
