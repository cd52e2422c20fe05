/** Reads a stream of message events to its end and checks that their order is the one clients rely on. */

import { expect } from "bun:test";
import type { ErrorBody } from "../../../src/server/anthropic/errors.ts";
import type { MessageEvent } from "../../../src/server/anthropic/shapes.ts";

export interface MessageLog {
  readonly events: readonly MessageEvent[];
  readonly errors: readonly ErrorBody[];
  readonly comments: number;
}

export async function readMessage(response: Response): Promise<MessageLog> {
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toStartWith("text/event-stream");
  const blocks = (await response.text()).split("\n\n");
  expect(blocks.pop()).toBe("");
  const events: MessageEvent[] = [];
  const errors: ErrorBody[] = [];
  let comments = 0;
  for (const block of blocks) {
    if (block.startsWith(":")) {
      comments += 1;
      continue;
    }
    const [, name, json] = /^event: (\w+)\ndata: (\{.*\})$/.exec(block) ?? [];
    const event = JSON.parse(json ?? "null") as MessageEvent | ErrorBody;
    expect(event.type).toBe(name as MessageEvent["type"]);
    expect(errors).toHaveLength(0); // an error is the last event
    if (event.type === "error") errors.push(event);
    else events.push(event);
  }
  expectOrder(events, errors.length > 0);
  return { events, errors, comments };
}

/** One start, blocks with contiguous indices one after the other, one delta of the message, one stop. */
function expectOrder(events: readonly MessageEvent[], failed: boolean): void {
  let state: "before" | "between" | "in block" | "ending" | "over" = "before";
  let index = -1;
  for (const event of events) {
    switch (event.type) {
      case "ping":
        expect(state).not.toBe("over");
        continue;
      case "message_start":
        expect(state).toBe("before");
        expect(event.message).toMatchObject({ content: [], stop_reason: null, stop_sequence: null });
        state = "between";
        continue;
      case "content_block_start":
        expect(state).toBe("between");
        index += 1;
        expect(event.index).toBe(index);
        state = "in block";
        continue;
      case "content_block_delta":
        expect([state, event.index]).toEqual(["in block", index]);
        continue;
      case "content_block_stop":
        expect([state, event.index]).toEqual(["in block", index]);
        state = "between";
        continue;
      case "message_delta":
        expect(state).toBe("between");
        state = "ending";
        continue;
      case "message_stop":
        expect(state).toBe("ending");
        state = "over";
    }
  }
  if (!failed) expect(state).toBe("over");
  else expect(state).not.toBe("over");
}
