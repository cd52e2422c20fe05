/** How many threads and on which processors: forms of the mask, what is stronger, other systems. */

import { describe, expect, test } from "bun:test";
import { notInEffect, resolveSettings } from "../../src/config/resolve.ts";
import { SETTINGS } from "../../src/config/settings.ts";
import { threadPlacement } from "../../src/config/thread-placement.ts";

/** Two slow and two fast cores, all of which this process may use. */
const BIG_LITTLE = {
  parallelism: 4,
  read(path: string): string | undefined {
    if (path === "/proc/self/status") return "Cpus_allowed_list:\t0-3\n";
    const [, processor, file] = /cpu(\d+)\/(cpu_capacity|topology\/thread_siblings_list)$/.exec(path) ?? [];
    if (file === undefined) return undefined;
    return file === "cpu_capacity" ? (Number(processor) < 2 ? "400" : "1024") : processor;
  },
};

function place(environment: Record<string, string>, platform: NodeJS.Platform = "linux") {
  const { settings } = resolveSettings("config explain", { environment });
  return threadPlacement(settings, BIG_LITTLE, platform);
}

describe("a mask", () => {
  const mask = (text: string) => place({ CANDLE_CPU_MASK: text }).processors;

  test("is numbers and ranges, each processor once and in order", () => {
    expect(mask("5")).toEqual([5]);
    expect(mask("5-7,15")).toEqual([5, 6, 7, 15]);
    expect(mask(" 3 , 1 - 2,2,0-0 ")).toEqual([0, 1, 2, 3]);
    expect(mask("8191")).toEqual([8191]);
  });

  test.each([" ", ",", "1,", "5-", "-5", "9-5", "a", "0x1", "1.5", "1-2-3", "8192", "0-9999999999"])(
    "is not %j",
    (text) => {
      expect(() => mask(text)).toThrow(
        `variable CANDLE_CPU_MASK has the value ${JSON.stringify(text)}; allowed: whole numbers from 0 to 8191 and ranges`,
      );
    },
  );

  test("brings as many threads, unless their number is said", () => {
    expect(place({ CANDLE_CPU_MASK: "0-2" })).toEqual({ threads: 3, processors: [0, 1, 2] });
    const both = { CANDLE_CPU_MASK: "0-2", CANDLE_NUM_THREADS: "2" };
    expect(place(both)).toEqual({ threads: 2, processors: [0, 1, 2] });
  });
});

test("without one nothing is pinned", () => {
  expect(place({})).toEqual({ threads: 4, processors: undefined });
});

test("the fast cores when they are asked for and no mask names others", () => {
  expect(place({ CANDLE_CPU_AFFINITY: "1" })).toEqual({ threads: 2, processors: [2, 3] });
  expect(place({ CANDLE_CPU_AFFINITY: "0" })).toEqual({ threads: 4, processors: undefined });
  expect(place({ CANDLE_CPU_AFFINITY: "1", CANDLE_CPU_MASK: "0" })).toEqual({ threads: 1, processors: [0] });
});

test("other systems pin nothing and say so", () => {
  const wishes = { CANDLE_CPU_AFFINITY: "1", CANDLE_CPU_MASK: "0" };
  expect(place(wishes, "darwin")).toEqual({ threads: 4, processors: undefined });
  expect(notInEffect(SETTINGS.processorMask, [0], "darwin")).toBe("only Linux can do it");
  expect(notInEffect(SETTINGS.processorMask, undefined, "darwin")).toBeUndefined();
  expect(notInEffect(SETTINGS.processorMask, [0], "linux")).toBeUndefined();
  expect(notInEffect(SETTINGS.spinLimit, 5, "darwin")).toBeUndefined();
});
