/** The whole answer as the fold of its stream: there is no second way to make one. */

import type { Usage } from "../../engine/messages.ts";
import type { TextEvent, TextFinishReason, TextToken } from "./request.ts";

export interface FoldedChoice {
  /** With an echoed prompt in front. */
  readonly text: string;
  readonly tokens: readonly TextToken[];
  readonly finishReason: TextFinishReason;
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
  const reasons: (TextFinishReason | undefined)[] = new Array(choiceCount).fill(undefined);
  let usage: Usage | undefined;
  for await (const batch of source) {
    for (const event of batch) {
      switch (event.type) {
        case "prompt":
        case "text":
          texts[event.choice] += event.text;
          for (const token of event.tokens) tokens[event.choice]!.push(token);
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
    return { text, tokens: tokens[index]!, finishReason };
  });
  return { choices, usage };
}
