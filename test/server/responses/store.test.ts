import { expect, test } from "bun:test";
import { LIMITS } from "../../../src/server/limits.ts";
import type { ResponseRun } from "../../../src/server/responses/run.ts";
import { ResponseStore } from "../../../src/server/responses/store.ts";

const limits = { entries: 3, bytes: 1_000, lifeMs: 60_000 };

function run(id: string, more: { bytes?: number; over?: boolean; onCancel?: () => void } = {}): ResponseRun {
  const { bytes = 10, over = true, onCancel = () => {} } = more;
  return { id, bytes, over, background: true, cancel: onCancel } as unknown as ResponseRun;
}

const has = (store: ResponseStore, id: string): boolean => {
  try {
    return store.get(id).id === id;
  } catch {
    return false;
  }
};

test("the oldest make room for the newest", () => {
  const store = new ResponseStore(limits);
  for (const id of ["a", "b", "c", "d"]) store.put(run(id));
  expect(["a", "b", "c", "d"].map((id) => has(store, id))).toEqual([false, true, true, true]);
});

test("bytes count as well as numbers", () => {
  const store = new ResponseStore(limits);
  store.put(run("a", { bytes: 600 }));
  store.put(run("b", { bytes: 600 }));
  expect([has(store, "a"), has(store, "b")]).toEqual([false, true]);
});

test("time takes them all, to the millisecond", () => {
  let now = 0;
  const store = new ResponseStore(limits, () => now);
  store.put(run("a"));
  now = limits.lifeMs;
  expect(has(store, "a")).toBe(true);
  now += 1;
  expect(has(store, "a")).toBe(false);
  expect(store.size).toBe(0);
});

test("what still runs stays, however old and however full", () => {
  let now = 0;
  const store = new ResponseStore(limits, () => now);
  store.put(run("a", { over: false, bytes: 5_000 }));
  for (const id of ["b", "c", "d", "e"]) store.put(run(id));
  now = limits.lifeMs * 2;
  expect(has(store, "a")).toBe(true);
  expect(store.running).toBe(1);
});

test("deleting stops and forgets", () => {
  let cancelled = 0;
  const store = new ResponseStore(limits);
  store.put(run("a", { over: false, onCancel: () => (cancelled += 1) }));
  store.delete("a");
  expect([cancelled, has(store, "a")]).toEqual([1, false]);
  expect(() => store.delete("a")).toThrow("There is no response");
});

test("a server's own limits are set", () => {
  expect(LIMITS.storedResponses).toBeGreaterThan(0);
  expect(new ResponseStore().size).toBe(0);
});
