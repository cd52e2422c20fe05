/** What must hold of every stream, whatever it says: one id, an order, one ending, and nothing after it. */

import { expect } from "bun:test";
import type { ResponseBody, ResponseStreamEvent } from "../../src/server/responses/shapes.ts";

interface Chunk {
  readonly id: string;
  readonly created: number;
  readonly model: string;
  readonly choices: readonly {
    readonly index: number;
    readonly finish_reason: string | null;
    readonly delta?: { readonly role?: string };
  }[];
}

/** Chunks of a chat or text completion. @param complete whether the stream ended with its mark and not with an error */
export function checkChunks(chunks: readonly unknown[], complete: boolean): void {
  const [first, ...rest] = chunks as readonly Chunk[];
  if (first === undefined) return;
  const finished = new Set<number>();
  const seen = new Set<number>();
  let costTold = false;
  for (const { id, created, model, choices } of [first, ...rest]) {
    expect([id, created, model]).toEqual([first.id, first.created, first.model]);
    expect(costTold).toBe(false);
    costTold = choices.length === 0;
    for (const { index, finish_reason, delta } of choices) {
      expect(finished.has(index)).toBe(false);
      // The role comes once, before anything else of its choice.
      if (delta !== undefined) expect(delta.role === "assistant").toBe(!seen.has(index));
      seen.add(index);
      if (finish_reason !== null) finished.add(index);
    }
  }
  if (complete) expect([...finished].sort()).toEqual([...seen].sort());
}

export interface ResponseLog {
  readonly events: readonly ResponseStreamEvent[];
  /** The response as the last event has it. */
  readonly final: ResponseBody;
  readonly text: string;
  readonly thoughts: string;
}

const TERMINAL: ReadonlySet<string> = new Set([
  "response.completed",
  "response.incomplete",
  "response.failed",
]);

/** Reads the stream of a response to its end and checks it. @param after the sequence number it was to begin after */
export async function readResponse(response: Response, after = -1): Promise<ResponseLog> {
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/event-stream");
  const frames = (await response.text()).split("\n\n").filter((frame) => !frame.startsWith(":"));
  expect(frames.splice(-2)).toEqual(["data: [DONE]", ""]);
  const events = frames.map((frame) => {
    const [name, data, ...more] = frame.split("\n");
    expect(more).toEqual([]);
    const event = JSON.parse(data!.slice("data: ".length)) as ResponseStreamEvent;
    expect(name).toBe(`event: ${event.type}`);
    return event;
  });
  return checkResponse(events, after);
}

/** Events after this sequence number, to the last. */
export function checkResponse(events: readonly ResponseStreamEvent[], after = -1): ResponseLog {
  expect(events.map(({ sequence_number }) => sequence_number)).toEqual(
    events.map((_, index) => after + 1 + index),
  );
  const terminal = events.filter(({ type }) => TERMINAL.has(type));
  expect(terminal).toHaveLength(1);
  const last = events.at(-1)!;
  if (!("response" in last)) throw new Error(`the last event is ${last.type}`);
  expect(terminal[0]).toBe(last);
  if (after < 0) {
    expect(events[0]?.type).toBe("response.created");
    expect(events.filter(({ type }) => type === "response.created")).toHaveLength(1);
    checkItems(events, last.response);
  }
  for (const event of events) if ("response" in event) expect(event.response.id).toBe(last.response.id);
  return {
    events,
    final: last.response,
    text: joined(events, "output_text"),
    thoughts: joined(events, "reasoning_text"),
  };
}

/** Items and their parts begin and end once, one after the other, under the ids they have in the final response. */
function checkItems(events: readonly ResponseStreamEvent[], final: ResponseBody): void {
  let open:
    | { readonly id: string; readonly index: number; text: string; partOpen: boolean; textDone: boolean }
    | undefined;
  let count = 0;
  for (const event of events) {
    switch (event.type) {
      case "response.output_item.added":
        expect(open).toBeUndefined();
        expect(event.output_index).toBe(count);
        expect(event.item.status).toBe("in_progress");
        open = { id: event.item.id, index: count, text: "", partOpen: false, textDone: false };
        count += 1;
        break;
      case "response.content_part.added":
        expect(open?.partOpen).toBe(false);
        open!.partOpen = true;
        expect([event.item_id, event.output_index, event.part.text]).toEqual([open!.id, open!.index, ""]);
        break;
      case "response.output_text.delta":
      case "response.reasoning_text.delta":
        expect([event.item_id, event.output_index]).toEqual([open!.id, open!.index]);
        expect([open!.partOpen, open!.textDone]).toEqual([true, false]);
        open!.text += event.delta;
        break;
      case "response.output_text.done":
      case "response.reasoning_text.done":
        expect([event.item_id, event.text, open!.textDone]).toEqual([open!.id, open!.text, false]);
        open!.textDone = true;
        break;
      case "response.content_part.done":
        expect([event.item_id, event.part.text, open!.textDone]).toEqual([open!.id, open!.text, true]);
        open!.partOpen = false;
        break;
      case "response.output_item.done":
        expect([event.item.id, event.output_index, open!.partOpen]).toEqual([open!.id, open!.index, false]);
        expect(event.item).toEqual(final.output[open!.index]!);
        open = undefined;
    }
  }
  expect(open).toBeUndefined();
  expect(final.output).toHaveLength(count);
}

function joined(events: readonly ResponseStreamEvent[], kind: "output_text" | "reasoning_text"): string {
  return events
    .map((event) => (event.type === `response.${kind}.delta` && "delta" in event ? event.delta : ""))
    .join("");
}
