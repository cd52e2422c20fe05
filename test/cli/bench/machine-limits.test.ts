import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { availableLevels } from "../../../src/backend/library.ts";
import { lastLevelCacheBytes, MachineLimits } from "../../../src/cli/bench/machine-limits.ts";
import { temporaryFolder } from "../../support/temporary-folder.ts";

/** Caches of processors as Linux tells them: level, type, size, who shares it. */
function processors(name: string, caches: readonly (readonly (readonly string[])[])[]): string {
  const root = join(temporaryFolder("caches"), name);
  caches.forEach((own, processor) => {
    own.forEach(([level = "", type = "", size = "", shared = ""], index) => {
      const folder = join(root, `cpu${processor}`, "cache", `index${index}`);
      mkdirSync(folder, { recursive: true });
      for (const [file, text] of Object.entries({ level, type, size, shared_cpu_list: shared })) {
        writeFileSync(join(folder, file), `${text}\n`);
      }
    });
  });
  return root;
}

test("the last-level caches of all processors count, each once", () => {
  const own = (processor: number) => [
    ["1", "Data", "48K", String(processor)],
    ["1", "Instruction", "32K", String(processor)],
    ["2", "Unified", "2048K", String(processor)],
  ];
  const shared = (list: string) => ["3", "Unified", "32M", list];
  const root = processors("two", [
    [...own(0), shared("0-1")],
    [...own(1), shared("0-1")],
    [...own(2), shared("2-3")],
    [...own(3), shared("2-3")],
  ]);
  expect(lastLevelCacheBytes(root)).toBe(64 * 2 ** 20);
  expect(lastLevelCacheBytes(processors("none", [own(0), own(1)]))).toBe(2 * 2048 * 1024);
});

test("where nothing is told a size is assumed", () => {
  expect(lastLevelCacheBytes("/nowhere")).toBe(64 * 2 ** 20);
});

test("a limit is measured once, and memory of nearly the same size with it", () => {
  const instructionSet = availableLevels().at(-1)!;
  const limits = new MachineLimits({ threads: 1, instructionSet });
  expect(limits.opsPerSecond("f32")).toBe(limits.f32OpsPerSecond);
  const { int8DotOpsPerSecond: dot, int8TileOpsPerSecond: tile = 0 } = limits;
  expect(limits.opsPerSecond("int8")).toBe(Math.max(dot, tile));
  expect(limits.opsPerSecond("bf16")).toBe(limits.bf16TileOpsPerSecond ?? limits.f32OpsPerSecond);
  expect(limits.readBytesPerSecond(1_000_000)).toBe(limits.readBytesPerSecond(1_010_000));
  expect(limits.readBytesPerSecond(1_000_000)).not.toBe(limits.readBytesPerSecond(30_000_000));
});

test("measured again, a limit is the better of both", () => {
  const limits = new MachineLimits({ threads: 1, instructionSet: availableLevels().at(-1)! });
  const first = { read: limits.readBytesPerSecond(1_000_000), f32: limits.f32OpsPerSecond };
  const again: (typeof first)[] = [];
  for (let time = 0; time < 3; time++) {
    limits.measureAgain();
    again.push({ read: limits.readBytesPerSecond(1_000_000), f32: limits.f32OpsPerSecond });
  }
  let best = first;
  for (const { read, f32 } of again) {
    expect(read).toBeGreaterThanOrEqual(best.read);
    expect(f32).toBeGreaterThanOrEqual(best.f32);
    best = { read, f32 };
  }
});
