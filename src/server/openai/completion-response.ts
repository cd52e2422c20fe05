/** Text completions on the wire: the chunks of a stream and the folded whole. */

import type { FoldedText } from "../generation/fold.ts";
import type { TextEvent, TextToken } from "../generation/request.ts";
import { DONE_EVENT, dataEvent } from "../sse.ts";
import { type AnswerHead, usageBody } from "./answer-head.ts";
import { completionLogprobs } from "./logprobs.ts";
import type { Completion } from "./responses.ts";

export function completion(head: AnswerHead, folded: FoldedText, withLogprobs: boolean): Completion {
  return {
    ...head,
    object: "text_completion",
    choices: folded.choices.map(({ text, tokens, finishReason }, index) => ({
      index,
      text,
      logprobs: withLogprobs ? completionLogprobs(tokens) : null,
      finish_reason: finishReason,
    })),
    usage: usageBody(folded.usage),
  };
}

/** The server-sent events of a completion; one string per batch of engine events. */
export async function* completionChunks(
  head: AnswerHead,
  source: AsyncIterable<readonly TextEvent[]>,
  options: { readonly includeUsage: boolean },
): AsyncGenerator<string, void, undefined> {
  const headJson = JSON.stringify({ ...head, object: "text_completion" }).slice(0, -1);
  const open = `${headJson},"choices":[{"index":`;
  const close = options.includeUsage ? '}],"usage":null}' : "}]}";
  const chunk = (index: number, text: string, tokens: readonly TextToken[], reason: string) => {
    const logprobs = tokens.length === 0 ? "null" : JSON.stringify(completionLogprobs(tokens));
    const choice = `${index},"text":${JSON.stringify(text)},"logprobs":${logprobs},"finish_reason":${reason}`;
    return dataEvent(open + choice + close);
  };
  for await (const batch of source) {
    let events = "";
    for (const event of batch) {
      switch (event.type) {
        case "prompt":
        case "text":
          events += chunk(event.choice, event.text, event.tokens, "null");
          break;
        case "reasoning":
          break; // completions do not tell thoughts apart
        case "finish":
          events += chunk(event.choice, "", [], `"${event.reason}"`);
          break;
        case "usage":
          if (options.includeUsage) {
            events += dataEvent(
              `${headJson},"choices":[],"usage":${JSON.stringify(usageBody(event.usage))}}`,
            );
          }
          events += DONE_EVENT;
      }
    }
    yield events;
  }
}
