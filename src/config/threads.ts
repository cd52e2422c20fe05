/**
 * How many threads compute when nobody says: the physical cores this process may use. Kernels keep a core's
 * vector units busy, so a second hardware thread of the same core only gets in the way. A container's CPU
 * quota and the process's affinity count too. And which processors are the fast ones, where they differ.
 */

import { readFileSync } from "node:fs";
import { availableParallelism } from "node:os";

/** What the operating system says; tests hand in another one. */
export interface ProcessorFacts {
  /** The text of a file, undefined if there is none. */
  readonly read: (path: string) => string | undefined;
  /** Hardware threads this process may use. */
  readonly parallelism: number;
}

const HERE: ProcessorFacts = {
  get parallelism() {
    return availableParallelism();
  },
  read(path) {
    try {
      return readFileSync(path, "utf8");
    } catch {
      return undefined;
    }
  },
};

/** Threads for the engine: at least 1. */
export function defaultThreads(facts: ProcessorFacts = HERE): number {
  const cores = physicalCores(facts) ?? facts.parallelism;
  const quota = cpuQuota(facts) ?? Number.POSITIVE_INFINITY;
  return Math.max(1, Math.min(cores, facts.parallelism, Math.floor(quota)));
}

/**
 * One processor of each fast core this process may use; undefined where all cores are equally fast, or the system
 * does not tell.
 */
export function fastProcessors(facts: ProcessorFacts = HERE): readonly number[] | undefined {
  const allowed = allowedProcessors(facts) ?? [];
  const fast = highCapacity(allowed, facts) ?? performanceCores(allowed, facts);
  if (fast === undefined || fast.length === 0 || fast.length === allowed.length) return undefined;
  return onePerCore(fast, facts) ?? fast;
}

/** A core is fast from this share of the fastest one's capacity. */
const FAST_SHARE = 0.9;

/** Where the kernel gives every processor a capacity, as it does on Arm. */
function highCapacity(allowed: readonly number[], { read }: ProcessorFacts): number[] | undefined {
  const capacities = allowed.map((processor) =>
    Number(read(`/sys/devices/system/cpu/cpu${processor}/cpu_capacity`)?.trim() ?? Number.NaN),
  );
  if (capacities.some(Number.isNaN)) return undefined;
  const best = Math.max(...capacities);
  return allowed.filter((_, index) => capacities[index]! >= best * FAST_SHARE);
}

/** Where Intel's performance cores have counters of their own. */
function performanceCores(allowed: readonly number[], { read }: ProcessorFacts): number[] | undefined {
  const list = read("/sys/devices/cpu_core/cpus")?.trim();
  if (list === undefined || list === "") return undefined;
  const cores = new Set(parseProcessorList(list));
  return allowed.filter((processor) => cores.has(processor));
}

/** Cores with at least one allowed hardware thread (Linux); undefined where the kernel does not tell. */
function physicalCores(facts: ProcessorFacts): number | undefined {
  const allowed = allowedProcessors(facts);
  if (allowed === undefined) return undefined;
  return onePerCore(allowed, facts)?.length || undefined;
}

function allowedProcessors({ read }: ProcessorFacts): number[] | undefined {
  const allowed = /^Cpus_allowed_list:\s*(\S+)$/m.exec(read("/proc/self/status") ?? "")?.[1];
  return allowed === undefined ? undefined : parseProcessorList(allowed);
}

/** The first of each core's hardware threads; undefined where the kernel does not tell. */
function onePerCore(processors: readonly number[], { read }: ProcessorFacts): number[] | undefined {
  const first = new Map<string, number>();
  for (const processor of processors) {
    const siblings = read(`/sys/devices/system/cpu/cpu${processor}/topology/thread_siblings_list`);
    if (siblings === undefined) return undefined;
    if (!first.has(siblings.trim())) first.set(siblings.trim(), processor);
  }
  return [...first.values()];
}

/** `0-2,5` is 0, 1, 2, 5. */
export function parseProcessorList(list: string): number[] {
  return list.split(",").flatMap((range) => {
    const [first = 0, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/** Processors a control group grants, from version 2 or 1 of the interface; the tightest level counts. */
function cpuQuota({ read }: ProcessorFacts): number | undefined {
  const own = /^0::(.*)$/m.exec(read("/proc/self/cgroup") ?? "")?.[1] ?? "/";
  let tightest: number | undefined;
  for (let path = own; ; path = path.slice(0, path.lastIndexOf("/"))) {
    const [quota, period] = (read(`/sys/fs/cgroup${path === "/" ? "" : path}/cpu.max`) ?? "").split(/\s+/);
    const granted = Number(quota) / Number(period);
    if (granted > 0) tightest = Math.min(tightest ?? granted, granted);
    if (path === "" || path === "/") break;
  }
  if (tightest !== undefined) return tightest;
  const quota = Number(read("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"));
  const period = Number(read("/sys/fs/cgroup/cpu/cpu.cfs_period_us"));
  return quota > 0 && period > 0 ? quota / period : undefined;
}
