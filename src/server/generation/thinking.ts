/** Whether and how much a model is to think before it answers, as variables of its chat template. */

import { MistralError } from "../../errors.ts";

/** What a request says about thinking; undefined leaves it to the model. */
export interface ThinkingWish {
  readonly enabled: boolean | undefined;
  readonly effort: Effort | undefined;
}

export const EFFORTS = ["none", "off", "minimal", "low", "medium", "high", "xhigh", "max"] as const;
export type Effort = (typeof EFFORTS)[number];

/** Templates name their switch in two ways; the second is also a common word, so it only counts without the first. */
const SWITCH = "enable_thinking";
const OLDER_SWITCH = /\bthinking\b/;
const EFFORT = "reasoning_effort";

/** Throws invalid_request when switch and effort contradict each other. */
export function thinkingVariables(
  wish: ThinkingWish,
  templateSource: string,
): Readonly<Record<string, unknown>> {
  const none = wish.effort === "none" || wish.effort === "off";
  if (wish.effort !== undefined && wish.enabled === none) {
    throw new MistralError(
      "invalid_request",
      `reasoning_effort "${wish.effort}" and enable_thinking ${wish.enabled} contradict each other; send one of them.`,
      { parameter: "reasoning_effort" },
    );
  }
  // Where the template knows no effort, asking for some at least switches thinking on.
  const byEffort =
    wish.effort !== undefined && (none || !templateSource.includes(EFFORT)) ? !none : undefined;
  const enabled = wish.enabled ?? byEffort;
  const variables: Record<string, unknown> = {};
  if (enabled !== undefined) {
    variables.enable_thinking = enabled;
    if (!templateSource.includes(SWITCH) && OLDER_SWITCH.test(templateSource)) variables.thinking = enabled;
  }
  if (wish.effort !== undefined && !none) variables.reasoning_effort = wish.effort;
  return variables;
}

/** Whether a template has anything that the switch, or the effort, could change. */
export function hearsThinking(templateSource: string): {
  readonly enabled: boolean;
  readonly effort: boolean;
} {
  const enabled = templateSource.includes(SWITCH) || OLDER_SWITCH.test(templateSource);
  return { enabled, effort: enabled || templateSource.includes(EFFORT) };
}
