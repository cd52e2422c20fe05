import { expect, test } from "bun:test";
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { availableMemoryBytes, hostMemory } from "../../src/models/host-memory.ts";
import { temporaryFolder } from "../support/temporary-folder.ts";

const MEMINFO = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    9000 kB\n";

function machine(files: Record<string, string>): string {
  const root = temporaryFolder("memory");
  for (const [name, text] of Object.entries({ "proc/meminfo": MEMINFO, ...files })) {
    const path = join(root, name);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
  return `${root}/`;
}

const KB = 1024;

test("without a control group the machine's own figures count", () => {
  expect(hostMemory(machine({}))).toEqual({ totalBytes: 16_000 * KB, availableBytes: 9_000 * KB });
  const unlimited = { "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/memory.current": "5\n" };
  expect(hostMemory(machine(unlimited)).totalBytes).toBe(16_000 * KB);
});

test("a container's limit counts, and what it uses less its file cache", () => {
  const group = {
    "sys/fs/cgroup/memory.max": `${4_000 * KB}\n`,
    "sys/fs/cgroup/memory.current": `${3_000 * KB}\n`,
    "sys/fs/cgroup/memory.stat": `anon 5\ninactive_file ${1_500 * KB}\n`,
  };
  expect(hostMemory(machine(group))).toEqual({ totalBytes: 4_000 * KB, availableBytes: 2_500 * KB });
});

test("the first version of control groups is understood; its limit of no limit is none", () => {
  const group = (limit: string) => ({
    "sys/fs/cgroup/memory/memory.limit_in_bytes": limit,
    "sys/fs/cgroup/memory/memory.usage_in_bytes": `${1_000 * KB}`,
    "sys/fs/cgroup/memory/memory.stat": `total_inactive_file ${500 * KB}\n`,
  });
  expect(hostMemory(machine(group(`${2_000 * KB}`)))).toEqual({
    totalBytes: 2_000 * KB,
    availableBytes: 1_500 * KB,
  });
  expect(hostMemory(machine(group("9223372036854771712"))).totalBytes).toBe(16_000 * KB);
});

test("this machine has some memory, of which some can be had", () => {
  const { totalBytes } = hostMemory();
  expect(availableMemoryBytes()).toBeGreaterThan(1e7);
  expect(totalBytes).toBeGreaterThan(availableMemoryBytes() - 1);
});
