/** The one native text request that every dialect maps to, and the events that come back. Knows no wire shape. */

import type { DryParameters, FinishReason, Priority, Usage } from "../../engine/messages.ts";
import type { ReasoningFormat } from "../../text/reasoning.ts";

export interface TextPrompt {
  readonly tokens: Int32Array;
  /** The text the tokens came from; undefined when the client sent token ids. */
  readonly text: string | undefined;
}

/** What the request says about sampling; undefined leaves it to the model's defaults. */
export interface SamplingOverrides {
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly topK: number | undefined;
  readonly minP: number | undefined;
  readonly frequencyPenalty: number | undefined;
  readonly presencePenalty: number | undefined;
  readonly repetitionPenalty: number | undefined;
  /** Any safe integer; undefined draws one for the request. */
  readonly seed: number | undefined;
  readonly logitBias: readonly { readonly token: number; readonly bias: number }[];
  /** Its breakers as texts; undefined turns it off. */
  readonly dry?: DryRequest | undefined;
}

export type DryRequest = Omit<DryParameters, "breakers"> & { readonly breakers: readonly string[] };

/** How to tell an answer's thoughts from what it says. */
export interface ReasoningStart {
  readonly format: ReasoningFormat;
  /** The rendered prompt, which may have opened or closed a thought for the model. */
  readonly prompt: string;
}

export interface TextRequest {
  readonly prompts: readonly TextPrompt[];
  /** What the dialect calls the prompt, for error messages. */
  readonly promptField: string;
  /** Answers per prompt. Answer i of prompt p is choice p * n + i and is drawn with the seed plus i. */
  readonly n: number;
  /** Answers generated per prompt, of which the `n` best are given: at least `n`, which it is when left out. */
  readonly bestOf?: number | undefined;
  /** Most tokens per answer; undefined is as many as the context holds. */
  readonly maxTokens: number | undefined;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  readonly sampling: SamplingOverrides;
  /** -1: none; n >= 0: of each token and its n most likely alternatives. */
  readonly logprobs: number;
  /** Reports the prompt's text first and, with `logprobs`, the prompt tokens'. */
  readonly echo: boolean;
  /** The answer goes on in the middle of the prompt's text, so that a space it begins with belongs to it. */
  readonly continues?: boolean;
  /** The answer may hold thoughts; when left out, all of it is content. */
  readonly reasoning?: ReasoningStart | undefined;
  /** Prompt tokens that were cut away because the request asked for it; none when left out. */
  readonly droppedTokens?: number;
  readonly priority?: Priority | undefined;
  /** Cached prefixes are shared only among requests with the same salt. */
  readonly cacheSalt?: string | undefined;
}

export interface TokenAlternative {
  readonly token: number;
  readonly bytes: Uint8Array;
  readonly logprob: number;
}

export interface TextToken {
  readonly token: number;
  readonly bytes: Uint8Array;
  /** Null for the first token of a prompt, which nothing precedes. */
  readonly logprob: number | null;
  readonly top: readonly TokenAlternative[];
  /** Where the token begins in its choice's text, in UTF-16 units; an echoed prompt is part of the text. */
  readonly offset: number;
}

export type TextFinishReason = Exclude<FinishReason, "abort">;

export interface TextUsage extends Usage {
  /** Of the completion's tokens, those spent on thinking. */
  readonly reasoningTokens: number;
}

/**
 * What happens to the choices of a request, in order for each choice: at most one `prompt`, any number of `reasoning`
 * and `text`, one `finish`. After all of them comes one `usage`, the last event. Failures are thrown instead.
 */
export type TextEvent =
  | {
      readonly type: "prompt";
      readonly choice: number;
      readonly text: string;
      readonly tokens: readonly TextToken[];
    }
  | {
      readonly type: "text";
      readonly choice: number;
      readonly text: string;
      readonly tokens: readonly TextToken[];
    }
  | { readonly type: "reasoning"; readonly choice: number; readonly text: string }
  | {
      readonly type: "finish";
      readonly choice: number;
      readonly reason: TextFinishReason;
      /** The stop string that ended the choice; null when something else did. */
      readonly stopString: string | null;
    }
  | { readonly type: "usage"; readonly usage: TextUsage };
