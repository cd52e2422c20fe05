/** What every answer and every chunk of one request have in common. */

import type { TextUsage } from "../generation/request.ts";
import { type ServedModel, systemFingerprint } from "../served-model.ts";
import type { UsageBody } from "./responses.ts";

export interface AnswerHead {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly system_fingerprint: string;
}

export function answerHead(prefix: "chatcmpl" | "cmpl", model: ServedModel): AnswerHead {
  return {
    id: `${prefix}-${crypto.randomUUID().replaceAll("-", "")}`,
    created: Math.floor(Date.now() / 1000),
    model: model.id,
    system_fingerprint: systemFingerprint(model),
  };
}

export function usageBody(usage: TextUsage): UsageBody {
  return {
    prompt_tokens: usage.promptTokens,
    completion_tokens: usage.completionTokens,
    total_tokens: usage.promptTokens + usage.completionTokens,
    prompt_tokens_details: { cached_tokens: usage.cachedTokens },
    completion_tokens_details: { reasoning_tokens: usage.reasoningTokens },
  };
}
