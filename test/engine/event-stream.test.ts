import { expect, test } from "bun:test";
import { EventStream } from "../../src/engine/event-stream.ts";
import type { TerminalEvent } from "../../src/engine/step-report.ts";
import { collect } from "./requests.ts";

const END: TerminalEvent = {
  type: "finish",
  reason: "length",
  usage: { promptTokens: 1, completionTokens: 2, cachedTokens: 0 },
};

test("tokens that wait are merged, a waiting reader gets each at once, in order", async () => {
  const stream = new EventStream(() => {});
  stream.pushToken(1, null);
  stream.pushToken(2, null);
  expect(await stream.next()).toEqual({
    done: false,
    value: { type: "tokens", tokens: [1, 2], logprobs: [] },
  });
  const next = stream.next();
  stream.pushToken(3, { token: 3, logprob: -1, top: [] });
  stream.pushToken(4, { token: 4, logprob: -2, top: [] });
  expect((await next).value).toMatchObject({ tokens: [3], logprobs: [{ logprob: -1 }] });
  stream.pushPrompt({ type: "prompt", logprobs: [null] });
  stream.pushToken(5, null);
  stream.end(END);
  stream.end({ type: "error", code: "backend", message: "late" });
  stream.pushToken(6, null);
  expect(await collect(stream)).toEqual([
    { type: "tokens", tokens: [4], logprobs: [{ token: 4, logprob: -2, top: [] }] },
    { type: "prompt", logprobs: [null] },
    { type: "tokens", tokens: [5], logprobs: [] },
    END,
  ]);
  expect(await stream.next()).toEqual({ done: true, value: undefined });
});

test("an event that was read is not changed afterwards", async () => {
  const stream = new EventStream(() => {});
  stream.pushToken(1, null);
  const { value } = await stream.next();
  stream.pushToken(2, null);
  expect(value).toEqual({ type: "tokens", tokens: [1], logprobs: [] });
});

test("a reader that leaves aborts the request, once, and hears nothing more", async () => {
  let aborts = 0;
  const stream = new EventStream(() => aborts++);
  stream.pushToken(1, null);
  stream.pushToken(2, null);
  for await (const event of stream) {
    expect(event.type).toBe("tokens");
    break;
  }
  await stream.return();
  stream.pushToken(3, null);
  expect(await stream.next()).toEqual({ done: true, value: undefined });
  expect(aborts).toBe(1);
});

test("a reader that leaves after the end aborts nothing", async () => {
  let aborts = 0;
  const stream = new EventStream(() => aborts++);
  stream.end(END);
  await stream.return();
  expect(aborts).toBe(0);
});

test("leaving while a read is pending ends that read", async () => {
  const stream = new EventStream(() => {});
  const next = stream.next();
  await stream.return();
  expect(await next).toEqual({ done: true, value: undefined });
});

test("a reader too far behind is aborted, but gets what waited and an error", async () => {
  let aborts = 0;
  const stream = new EventStream(() => aborts++, 3);
  for (let token = 0; token < 10; token++) stream.pushToken(token, null);
  expect(aborts).toBe(1);
  expect(await collect(stream)).toMatchObject([
    { type: "tokens", tokens: [0, 1, 2, 3] },
    { type: "error", code: "overloaded" },
  ]);
});

test("what was read no longer counts as waiting", async () => {
  const stream = new EventStream(() => {
    throw new Error("aborted");
  }, 3);
  for (let token = 0; token < 30; token++) {
    stream.pushToken(token, null);
    if (token % 3 === 2) await stream.next();
  }
  expect(stream.ended).toBe(false);
});
