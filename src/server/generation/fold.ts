/** The whole answer as the fold of its stream: there is no second way to make one. */

import type { Usage } from "../../engine/messages.ts";
import type { TextEvent, TextFinishReason, TextToken } from "./request.ts";

export interface FoldedChoice {
  /** With an echoed prompt in front. */
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly finishReason: TextFinishReason;
  /** Mean log-probability of the answer's tokens; minus infinity for an answer without any reported. */
  readonly meanLogprob: number;
}

export interface FoldedText {
  readonly choices: readonly FoldedChoice[];
  readonly usage: Usage;
}

/** Reads the stream to its end. Throws what the stream throws, and an Error when it ends before its last event. */
export async function foldText(
  source: AsyncIterable<readonly TextEvent[]>,
  choiceCount: number,
): Promise<FoldedText> {
  const texts: string[] = new Array(choiceCount).fill("");
  const tokens: TextToken[][] = Array.from({ length: choiceCount }, () => []);
  const sums: number[] = new Array(choiceCount).fill(0);
  const counts: number[] = new Array(choiceCount).fill(0);
  const reasons: (TextFinishReason | undefined)[] = new Array(choiceCount).fill(undefined);
  let usage: Usage | undefined;
  for await (const batch of source) {
    for (const event of batch) {
      switch (event.type) {
        case "prompt":
        case "text":
          texts[event.choice] += event.text;
          for (const token of event.tokens) {
            tokens[event.choice]!.push(token);
            if (event.type === "prompt" || token.logprob === null) continue;
            sums[event.choice]! += token.logprob;
            counts[event.choice]! += 1;
          }
          break;
        case "finish":
          reasons[event.choice] = event.reason;
          break;
        case "usage":
          usage = event.usage;
      }
    }
  }
  if (usage === undefined) throw new Error("the stream ended without its usage");
  const choices = texts.map((text, index) => {
    const finishReason = reasons[index];
    if (finishReason === undefined) throw new Error(`choice ${index} ended without a reason`);
    const meanLogprob = counts[index] === 0 ? Number.NEGATIVE_INFINITY : sums[index]! / counts[index]!;
    return { text, tokens: tokens[index]!, finishReason, meanLogprob };
  });
  return { choices, usage };
}

/**
 * Of each prompt's `bestOf` answers the `n` with the highest log-probability per token, best first; equals in the
 * order of their seeds. The usage stays that of all: they were all generated.
 */
export function bestAnswers({ choices, usage }: FoldedText, n: number, bestOf: number): FoldedText {
  if (bestOf === n) return { choices, usage };
  const best: FoldedChoice[] = [];
  for (let first = 0; first < choices.length; first += bestOf) {
    const candidates = choices.slice(first, first + bestOf);
    best.push(...candidates.sort((a, b) => compareScores(a.meanLogprob, b.meanLogprob)).slice(0, n));
  }
  return { choices: best, usage };
}

/** Descending; written without subtraction, which two infinities would make NaN of. */
function compareScores(a: number, b: number): number {
  return a === b ? 0 : a > b ? -1 : 1;
}
