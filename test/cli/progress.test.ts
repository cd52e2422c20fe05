import { expect, test } from "bun:test";
import { TransferProgress } from "../../src/cli/progress.ts";

function harness() {
  const lines: string[] = [];
  let nowMs = 0;
  const output = { isTTY: false, write: (text: string) => lines.push(...text.trimEnd().split("\n")) };
  const progress = new TransferProgress(output, () => nowMs);
  return {
    lines,
    at(milliseconds: number, bytesDone: number, bytesTotal: number | undefined, name = "model.gguf") {
      nowMs = milliseconds;
      progress.update({ action: "fetch", name, bytesDone, bytesTotal });
    },
  };
}

test("says what, how much, how fast and how long", () => {
  const { lines, at } = harness();
  at(0, 0, 100_000_000);
  at(1_500, 30_000_000, 100_000_000);
  at(4_000, 100_000_000, 100_000_000);
  expect(lines).toEqual([
    "fetching model.gguf (100 MB)",
    "  30.0 MB of 100 MB (30%), 20.0 MB/s",
    "fetched model.gguf: 100 MB in 4.0 s, 25.0 MB/s",
  ]);
});

test("a fast transfer is not a flood of lines, a slow one not silence", () => {
  const fast = harness();
  for (let tick = 0; tick < 100; tick++) fast.at(tick * 10, tick * 1000, 100_000);
  expect(fast.lines).toHaveLength(1);
  const slow = harness();
  for (let second = 0; second <= 60; second++) slow.at(second * 1000, second, 1_000_000);
  expect(slow.lines).toHaveLength(7);
});

test("a resumed transfer's speed counts only what came now", () => {
  const { lines, at } = harness();
  at(0, 50_000_000, 100_000_000);
  at(10_000, 100_000_000, 100_000_000);
  expect(lines[0]).toContain("going on at 50.0 MB");
  expect(lines[1]).toContain("5.00 MB/s");
});

test("a size nobody knows is no reason for silence", () => {
  const { lines, at } = harness();
  at(0, 0, undefined);
  at(2_000, 4_000_000, undefined);
  expect(lines).toEqual(["fetching model.gguf", "  4.00 MB, 2.00 MB/s"]);
});

test("unpacking what was fetched is another transfer", () => {
  const lines: string[] = [];
  const progress = new TransferProgress({ write: (text: string) => lines.push(text) }, () => 0);
  progress.update({ action: "fetch", name: "a.whl", bytesDone: 5, bytesTotal: 10 });
  progress.update({ action: "unpack", name: "a.whl", bytesDone: 0, bytesTotal: 20 });
  expect(lines).toEqual(["fetching a.whl (10 B)\n", "unpacking a.whl (20 B)\n"]);
});

test("an end that is told twice is shown once", () => {
  const { lines, at } = harness();
  at(0, 0, 10);
  at(100, 10, 10);
  at(200, 10, 10);
  expect(lines).toHaveLength(2);
});

test("each file has its own lines", () => {
  const { lines, at } = harness();
  at(0, 0, 10, "a");
  at(100, 10, 10, "a");
  at(200, 0, 20, "b");
  expect(lines.map((line) => line.split(" ").slice(0, 2).join(" "))).toEqual([
    "fetching a",
    "fetched a:",
    "fetching b",
  ]);
});
