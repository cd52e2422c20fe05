/** Threads of a device as the kernel shows them: where they may run, and whether they spin or sleep. */

import { beforeEach, describe, expect, test } from "bun:test";
import { Device } from "../../src/backend/device.ts";
import { mainThreadOf, poolThreadsOf } from "../support/thread-status.ts";

const onLinux = process.platform === "linux";
const free = onLinux ? mainThreadOf(process.pid).processors : [];
/** Two processors, or one twice on a machine that has no other. */
const [first = 0, second = first] = free;
const pair = [...new Set([first, second])];

const ownProcessors = () => mainThreadOf(process.pid).processors;
/** Threads of devices that other files left open. */
const others = new Set<number>();
const ownPool = () => poolThreadsOf(process.pid).filter(({ id }) => !others.has(id));
const poolProcessors = () => ownPool().map(({ processors }) => processors);

beforeEach(() => {
  if (onLinux) for (const { id } of poolThreadsOf(process.pid)) others.add(id);
});

function failure(processors: readonly number[]): unknown {
  try {
    Device.open({ kind: "cpu", threads: 2, processors }).close();
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

describe.if(onLinux)("pinning", () => {
  test("to one processor: all threads are there, and the caller is free again when the device is closed", () => {
    const device = Device.open({ kind: "cpu", threads: 3, processors: [second] });
    expect(poolProcessors()).toEqual([[second], [second]]);
    expect(ownProcessors()).toEqual([second]);
    device.close();
    expect(poolProcessors()).toEqual([]);
    expect(ownProcessors()).toEqual(free);
  });

  test("to two: by turns, and the caller has both as long as it does not compute", () => {
    const device = Device.open({ kind: "cpu", threads: 4, processors: pair });
    expect(poolProcessors()).toEqual([[second], [first], [second]]);
    expect(ownProcessors()).toEqual(pair);
    device.close();
    expect(ownProcessors()).toEqual(free);
  });

  test("to more processors than threads: none is left over", () => {
    const device = Device.open({ kind: "cpu", threads: 2, processors: free });
    const dealt = free.filter((_, index) => index % 2 === 1);
    expect(poolProcessors()).toEqual([dealt.length === 0 ? free : dealt]);
    device.close();
  });

  test("nothing is pinned when nobody asks for it", () => {
    const device = Device.open({ kind: "cpu", threads: 2 });
    expect(poolProcessors()).toEqual([free]);
    device.close();
  });

  test.each([8191, 8192, 2 ** 31])("processor %i, which does not exist", (processor) => {
    for (const list of [[processor], [first, processor]]) {
      const error = failure(list);
      expect(error).toMatchObject({
        code: "invalid_configuration",
        parameter: "processors",
        message: expect.stringContaining(
          `cannot be pinned to processor ${processor}, which does not exist; this process may use ${first}`,
        ),
      });
    }
    expect(ownProcessors()).toEqual(free);
    expect(poolProcessors()).toEqual([]);
  });

  test("what is no list of processors", () => {
    expect(failure([])).toMatchObject({ message: expect.stringContaining("a list of no processors") });
    expect(failure([-1])).toMatchObject({
      message: expect.stringContaining("-1 is no number of a processor"),
    });
    expect(failure([0.5])).toMatchObject({ message: expect.stringContaining("0.5 is no number") });
  });
});

describe.if(onLinux)("a waiting thread", () => {
  const states = () => ownPool().map(({ state }) => state);

  test("sleeps soon when it spins for no rounds", async () => {
    const device = Device.open({ kind: "cpu", threads: 2, spinRounds: 0 });
    for (const end = Date.now() + 10_000; states().join() !== "S" && Date.now() < end; ) await Bun.sleep(1);
    expect(states()).toEqual(["S"]);
    device.close();
  }, 20_000);

  test("spins for as many rounds as it is told, which may be minutes", async () => {
    const device = Device.open({ kind: "cpu", threads: 2, spinRounds: 2 ** 31 - 1 });
    // Thousands of times as long as when nobody says.
    await Bun.sleep(200);
    expect(states()).toEqual(["R"]);
    device.close();
  });
});

test.if(!onLinux)("other systems refuse", () => {
  expect(failure([0])).toMatchObject({ message: expect.stringContaining("does not pin threads") });
});
