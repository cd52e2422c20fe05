import { expect, test } from "bun:test";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import type { Way } from "../../../../src/cli/bench/against/peer.ts";
import { busySeconds } from "../../../../src/cli/bench/against/processor-time.ts";
import { contest, median } from "../../../../src/cli/bench/against/turns.ts";
import { temporaryFolder } from "../../../support/temporary-folder.ts";

/** Work whose turns last what the lists say, and the order in which they were taken. */
function work(own: number[], flash: number[], plain: number[]) {
  const order: string[] = [];
  return {
    order,
    own: () => {
      order.push("own");
      return own.shift()!;
    },
    peer: async (isFlash: Way) => {
      order.push(isFlash === true ? "flash" : "plain");
      return { seconds: (isFlash === true ? flash : plain).shift()!, processorSeconds: 0 };
    },
    ways: [true, false],
  };
}

test("the sides alternate, and who begins alternates too; the better way counts", async () => {
  const given = work([3, 1, 2], [10, 12, 11], [9, 10, 10]);
  const result = await contest(given, 3);
  const round = ["own", "flash", "plain"];
  expect(given.order).toEqual([...round, "flash", "plain", "own", ...round]);
  expect(result).toMatchObject({ own: [3, 1, 2], peer: [9, 10, 10], way: false, rounds: 3, disturbed: 0 });
});

test("a way that is far behind is not tried again, and the last one always is", async () => {
  const given = work([1, 1], [10, 11], [13]);
  const result = await contest(given, 2);
  expect(given.order).toEqual(["own", "flash", "plain", "flash", "own"]);
  expect(result).toMatchObject({ peer: [10, 11], way: true, rounds: 2 });
});

test("a side with one way is given a turn of it in each round", async () => {
  const given = { ...work([1, 1], [], [13, 12]), ways: [undefined] };
  expect(await contest(given, 2)).toMatchObject({ peer: [13, 12], way: undefined, rounds: 2 });
  expect(given.order).toEqual(["own", "plain", "plain", "own"]);
});

test("one disturbed turn does not give a way up", async () => {
  const given = work([1, 1, 1], [10, 10, 10], [12, 9, 9]);
  expect(await contest(given, 3)).toMatchObject({ peer: [12, 9, 9], way: false });
});

const spin = (milliseconds: number): void => {
  for (const end = performance.now() + milliseconds; performance.now() < end; );
};

/** Turns of a third of a second in which this process works; it is said to be others where `disturbs` says so. */
function spinning(disturbs: (round: number) => boolean) {
  let ownTurns = 0;
  let peerTurns = 0;
  return {
    own: () => ++ownTurns,
    peer: async () => {
      const round = Math.floor(peerTurns++ / 2) + 1;
      spin(330);
      return { seconds: 10 + round, processorSeconds: disturbs(round) ? 0 : 0.33 };
    },
    ways: [true, false],
  };
}

test.if(busySeconds() !== undefined)(
  "rounds in which others work are repeated and do not count",
  async () => {
    // On a machine that others use now, more rounds than these may be disturbed.
    const result = await contest(
      spinning((round) => round === 1),
      2,
    );
    expect(result.disturbed).toBeGreaterThanOrEqual(1);
    expect(result.rounds).toBeGreaterThanOrEqual(3);
    if (result.disturbed < result.rounds) expect(result.own).not.toContain(1);
    expect(result.peer).toEqual(result.own.map((round) => round + 10));
  },
);

test.if(busySeconds() !== undefined)("when all are disturbed, all count", async () => {
  const result = await contest(
    spinning(() => true),
    1,
  );
  expect(result).toMatchObject({ own: [1, 2], peer: [11, 12], disturbed: 2, rounds: 2 });
});

test("the processors' time is what they worked and what was taken away, not what they rested", () => {
  const path = join(temporaryFolder("stat"), "stat");
  writeFileSync(path, "cpu  100 20 30 4000 500 6 7 80 9 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n");
  expect(busySeconds(path)).toBeCloseTo(2.43, 10);
  writeFileSync(path, "intr 1 2 3\n");
  expect(busySeconds(path)).toBeUndefined();
  expect(busySeconds("/nowhere/stat")).toBeUndefined();
});

test("medians", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 8])).toBe(3);
  expect(median([5])).toBe(5);
});
