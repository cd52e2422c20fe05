import { expect, test } from "bun:test";
import { Patience } from "../../src/engine/patience.ts";

test("before the first step ten times the timeout is allowed, then the timeout itself", () => {
  const patience = new Patience(60_000);
  patience.begin(512);
  expect(patience.allowedMs).toBe(600_000);
  patience.learn(0, 5_000);
  expect(patience.allowedMs).toBe(600_000);
  patience.learn(16, 20);
  expect(patience.allowedMs).toBe(60_000);
});

test("a machine on which a full step takes minutes is given them", () => {
  const patience = new Patience(60_000);
  patience.begin(512);
  patience.learn(512, 100_000);
  expect(patience.allowedMs).toBe(400_000);
  // A token by itself is slower than one of many, and only raises what is allowed.
  patience.learn(1, 400);
  expect(patience.allowedMs).toBe(819_200);
});

test("a slow moment is forgotten, and a new process starts anew", () => {
  const patience = new Patience(60_000);
  patience.begin(512);
  patience.learn(1, 3_600_000);
  for (let step = 0; step < 1_000; step++) patience.learn(16, 20);
  expect(patience.allowedMs).toBe(60_000);
  patience.begin(512);
  expect(patience.allowedMs).toBe(600_000);
});
