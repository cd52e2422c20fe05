import { expect, test } from "bun:test";
import { admit } from "../../../src/server/generation/admission.ts";
import { EventQueue } from "../../../src/server/generation/event-queue.ts";

test("what waits is taken at once, what comes later wakes the consumer", async () => {
  const queue = new EventQueue<number>();
  const batches = queue.batches();
  queue.push(1);
  queue.push(2);
  expect(await batches.next()).toEqual({ done: false, value: [1, 2] });
  const next = batches.next();
  queue.push(3);
  expect(await next).toEqual({ done: false, value: [3] });
  queue.end();
  expect(await batches.next()).toEqual({ done: true, value: undefined });
});

test("a failure comes after what was pushed before it, and only the first ending counts", async () => {
  const queue = new EventQueue<number>();
  queue.push(1);
  queue.fail(new Error("first"));
  queue.fail(new Error("second"));
  queue.push(2);
  const batches = queue.batches();
  expect((await batches.next()).value).toEqual([1]);
  await expect(batches.next()).rejects.toThrow("first");
});

async function* items(delayMs: number, failure?: Error): AsyncGenerator<number, void, undefined> {
  await Bun.sleep(delayMs);
  if (failure !== undefined) throw failure;
  yield 1;
  yield 2;
}

test("admission throws an early failure and passes a late one on", async () => {
  await expect(admit(items(0, new Error("early")), 50)).rejects.toThrow("early");
  const late = await admit(items(40, new Error("late")), 5);
  await expect(Array.fromAsync(late)).rejects.toThrow("late");
});

test("admission waits no longer than it is told, and loses nothing", async () => {
  const started = performance.now();
  const admitted = await admit(items(150), 10);
  expect(performance.now() - started).toBeLessThan(100);
  expect(await Array.fromAsync(admitted)).toEqual([1, 2]);
  expect(await Array.fromAsync(await admit(items(0), 1_000))).toEqual([1, 2]);
  expect(performance.now() - started).toBeLessThan(900);
});
