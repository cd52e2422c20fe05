import { expect, test } from "bun:test";
import { collectWhenIdle } from "../../src/engine/idle-collection.ts";

test("collects once after each time of work, when it is over", async () => {
  let work: number | null = 0;
  let collections = 0;
  const timer = collectWhenIdle(
    () => work,
    () => {
      collections += 1;
    },
    20,
  );
  try {
    await Bun.sleep(100);
    expect(collections).toBe(0);
    for (work = 1; work < 12; work++) await Bun.sleep(10);
    work = null;
    await Bun.sleep(80);
    expect(collections).toBe(0);
    work = 12;
    await Bun.sleep(150);
    expect(collections).toBe(1);
    work = 13;
    await Bun.sleep(150);
    expect(collections).toBe(2);
  } finally {
    clearInterval(timer);
  }
});
