import { describe, expect, test } from "bun:test";
import { availableParallelism } from "node:os";
import { defaultThreads, fastProcessors, parseProcessorList } from "../../src/config/threads.ts";

/** A machine with these allowed processors, hardware threads paired into cores as `siblings` says. */
function machine(options: {
  allowed: string;
  parallelism: number;
  siblings: (processor: number) => string;
  files?: Record<string, string>;
}) {
  return {
    parallelism: options.parallelism,
    read(path: string): string | undefined {
      if (path === "/proc/self/status") return `Name:\tbun\nCpus_allowed_list:\t${options.allowed}\n`;
      const processor = /cpu(\d+)\/topology\/thread_siblings_list$/.exec(path)?.[1];
      return processor === undefined ? options.files?.[path] : `${options.siblings(Number(processor))}\n`;
    },
  };
}

const paired = (processor: number) => `${processor % 4},${(processor % 4) + 4}`;

test("two hardware threads of a core count once", () => {
  expect(defaultThreads(machine({ allowed: "0-7", parallelism: 8, siblings: paired }))).toBe(4);
  expect(defaultThreads(machine({ allowed: "0-7", parallelism: 8, siblings: String }))).toBe(8);
});

test("only cores of the process's affinity count", () => {
  expect(defaultThreads(machine({ allowed: "0,4,5", parallelism: 3, siblings: paired }))).toBe(2);
});

test("a container's quota counts, whole processors only and never less than one", () => {
  const withFiles = (files: Record<string, string>) =>
    defaultThreads(machine({ allowed: "0-7", parallelism: 8, siblings: paired, files }));
  expect(withFiles({ "/sys/fs/cgroup/cpu.max": "250000 100000\n" })).toBe(2);
  expect(withFiles({ "/sys/fs/cgroup/cpu.max": "50000 100000\n" })).toBe(1);
  expect(withFiles({ "/sys/fs/cgroup/cpu.max": "max 100000\n" })).toBe(4);
  const nested = { "/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "300000 100000\n" };
  expect(withFiles(nested)).toBe(3);
  const versionOne = {
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000\n",
    "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
  };
  expect(withFiles(versionOne)).toBe(2);
  expect(withFiles({ ...versionOne, "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n" })).toBe(4);
});

test("where the kernel tells nothing, the available parallelism is taken", () => {
  expect(defaultThreads({ parallelism: 6, read: () => undefined })).toBe(6);
});

describe("the fast processors, one of each core", () => {
  const arm = (capacities: readonly number[], allowed: string) => {
    const files = Object.fromEntries(
      capacities.map((capacity, index) => [
        `/sys/devices/system/cpu/cpu${index}/cpu_capacity`,
        `${capacity}\n`,
      ]),
    );
    return fastProcessors(machine({ allowed, parallelism: capacities.length, siblings: String, files }));
  };

  test("by their capacity, of which nine tenths of the best are enough", () => {
    expect(arm([446, 446, 871, 1024, 922], "0-4")).toEqual([3, 4]);
    expect(arm([446, 446, 871, 1024, 922], "0-2")).toEqual([2]);
  });

  test("none where all that may be used are alike", () => {
    expect(arm([1024, 1024, 1000], "0-2")).toBeUndefined();
    expect(arm([446, 446, 1024], "0-1")).toBeUndefined();
    expect(fastProcessors(machine({ allowed: "0-7", parallelism: 8, siblings: paired }))).toBeUndefined();
    expect(fastProcessors({ parallelism: 6, read: () => undefined })).toBeUndefined();
  });

  test("by the performance cores of Intel, whose second hardware threads are left out", () => {
    const siblings = (processor: number) =>
      processor < 4 ? `${processor & ~1}-${processor | 1}` : String(processor);
    const files = { "/sys/devices/cpu_core/cpus": "0-3\n" };
    expect(fastProcessors(machine({ allowed: "0-7", parallelism: 8, siblings, files }))).toEqual([0, 2]);
    expect(fastProcessors(machine({ allowed: "1,4-7", parallelism: 5, siblings, files }))).toEqual([1]);
    expect(fastProcessors(machine({ allowed: "4-7", parallelism: 4, siblings, files }))).toBeUndefined();
  });
});

test("a list of processors as the kernel writes it", () => {
  expect(parseProcessorList("0-2,5,7-8")).toEqual([0, 1, 2, 5, 7, 8]);
});

test("this machine", () => {
  const threads = defaultThreads();
  expect(threads).toBeGreaterThanOrEqual(1);
  expect(threads).toBeLessThanOrEqual(availableParallelism());
});
