/** Chat answers on the wire: the chunks of a stream and the folded whole. */

import type { FoldedText } from "../generation/fold.ts";
import type { TextEvent } from "../generation/request.ts";
import { DONE_EVENT, dataEvent } from "../sse.ts";
import { type AnswerHead, usageBody } from "./answer-head.ts";
import { chatLogprobs } from "./logprobs.ts";
import type { ChatCompletion } from "./responses.ts";

export function chatCompletion(head: AnswerHead, folded: FoldedText, withLogprobs: boolean): ChatCompletion {
  return {
    ...head,
    object: "chat.completion",
    choices: folded.choices.map(({ text, reasoning, tokens, finishReason }, index) => ({
      index,
      message: {
        role: "assistant",
        content: text,
        refusal: null,
        ...(reasoning === "" ? {} : { reasoning_content: reasoning }),
      },
      logprobs: withLogprobs ? chatLogprobs(tokens) : null,
      finish_reason: finishReason,
    })),
    usage: usageBody(folded.usage),
  };
}

export interface ChunkOptions {
  readonly choiceCount: number;
  readonly includeUsage: boolean;
}

/**
 * The server-sent events of a chat answer; one string per batch of engine events. Chunks differ in a few characters,
 * so the rest of their JSON is made once.
 */
export async function* chatChunks(
  head: AnswerHead,
  source: AsyncIterable<readonly TextEvent[]>,
  options: ChunkOptions,
): AsyncGenerator<string, void, undefined> {
  const headJson = JSON.stringify({ ...head, object: "chat.completion.chunk" }).slice(0, -1);
  const open = `${headJson},"choices":[{"index":`;
  const close = options.includeUsage ? '}],"usage":null}' : "}]}";
  const chunk = (index: number, delta: string, logprobs: string, reason: string) =>
    dataEvent(`${open}${index},"delta":${delta},"logprobs":${logprobs},"finish_reason":${reason}${close}`);

  const roles: string[] = [];
  for (let index = 0; index < options.choiceCount; index += 1) {
    roles.push(chunk(index, '{"role":"assistant","content":"","refusal":null}', "null", "null"));
  }
  yield roles.join("");

  for await (const batch of source) {
    let events = "";
    for (const event of batch) {
      switch (event.type) {
        case "prompt":
          break; // chat never echoes
        case "text": {
          const logprobs = event.tokens.length === 0 ? "null" : JSON.stringify(chatLogprobs(event.tokens));
          events += chunk(event.choice, `{"content":${JSON.stringify(event.text)}}`, logprobs, "null");
          break;
        }
        case "reasoning":
          events += chunk(
            event.choice,
            `{"reasoning_content":${JSON.stringify(event.text)}}`,
            "null",
            "null",
          );
          break;
        case "finish":
          events += chunk(event.choice, "{}", "null", `"${event.reason}"`);
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
