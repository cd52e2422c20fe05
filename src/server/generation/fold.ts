/** The whole answer as the fold of its stream: there is no second way to make one. */

import type { TextEvent, TextFinishReason, TextToken, TextUsage } from "./request.ts";

export interface FoldedChoice {
  /** With an echoed prompt in front. */
  readonly text: string;
  /** What the model thought; "" when it did not, or when nobody asked to tell it apart. */
  readonly reasoning: string;
  readonly tokens: readonly TextToken[];
  readonly finishReason: TextFinishReason;
  /** The stop string that ended it; null when something else did. */
  readonly stopString: string | null;
  /** Mean log-probability of the answer's tokens; minus infinity for an answer without any reported. */
  readonly meanLogprob: number;
}

export interface FoldedText {
  readonly choices: readonly FoldedChoice[];
  readonly usage: TextUsage;
}

/** Reads the stream to its end. Throws what the stream throws, and an Error when it ends before its last event. */
export async function foldText(
  source: AsyncIterable<readonly TextEvent[]>,
  choiceCount: number,
): Promise<FoldedText> {
  const texts: string[] = new Array(choiceCount).fill("");
  const thoughts: string[] = new Array(choiceCount).fill("");
  const tokens: TextToken[][] = Array.from({ length: choiceCount }, () => []);
  const sums: number[] = new Array(choiceCount).fill(0);
  const counts: number[] = new Array(choiceCount).fill(0);
  const ends: (Extract<TextEvent, { type: "finish" }> | undefined)[] = new Array(choiceCount).fill(undefined);
  let usage: TextUsage | undefined;
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
        case "reasoning":
          thoughts[event.choice] += event.text;
          break;
        case "finish":
          ends[event.choice] = event;
          break;
        case "usage":
          usage = event.usage;
      }
    }
  }
  if (usage === undefined) throw new Error("the stream ended without its usage");
  const choices = texts.map((text, index) => {
    const end = ends[index];
    if (end === undefined) throw new Error(`choice ${index} ended without a reason`);
    const meanLogprob = counts[index] === 0 ? Number.NEGATIVE_INFINITY : sums[index]! / counts[index]!;
    return {
      text,
      reasoning: thoughts[index]!,
      tokens: tokens[index]!,
      finishReason: end.reason,
      stopString: end.stopString,
      meanLogprob,
    };
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
