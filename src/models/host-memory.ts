/**
 * How much memory there is and how much of it can be had, as this process may use it: a container's limit counts
 * where there is one.
 */

import { readFileSync } from "node:fs";
import { freemem, totalmem } from "node:os";

export interface HostMemory {
  readonly totalBytes: number;
  /** Can be had without swapping; what only caches files counts as free. */
  readonly availableBytes: number;
}

/** Where Linux tells, under this root. */
export function hostMemory(root = "/"): HostMemory {
  const host = linuxMemory(`${root}proc/meminfo`) ?? { totalBytes: totalmem(), availableBytes: freemem() };
  const group = groupMemory(`${root}sys/fs/cgroup/`);
  if (group === undefined || group.totalBytes >= host.totalBytes) return host;
  return {
    totalBytes: group.totalBytes,
    availableBytes: Math.min(host.availableBytes, group.availableBytes),
  };
}

/** Memory that can be had without swapping, in bytes. */
export function availableMemoryBytes(): number {
  return hostMemory().availableBytes;
}

function linuxMemory(path: string): HostMemory | undefined {
  const text = readText(path);
  const kilobytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]);
  const memory = {
    totalBytes: kilobytes("MemTotal") * 1024,
    availableBytes: kilobytes("MemAvailable") * 1024,
  };
  return Number.isNaN(memory.totalBytes + memory.availableBytes) ? undefined : memory;
}

/** The limit of the control group this process lives in, version 2 or 1; undefined where there is none. */
function groupMemory(folder: string): HostMemory | undefined {
  const limit = numberIn(`${folder}memory.max`) ?? numberIn(`${folder}memory/memory.limit_in_bytes`);
  const used = numberIn(`${folder}memory.current`) ?? numberIn(`${folder}memory/memory.usage_in_bytes`);
  if (limit === undefined || used === undefined) return undefined;
  const statistics = readText(`${folder}memory.stat`) || readText(`${folder}memory/memory.stat`);
  const cached = Number(/^(?:total_)?inactive_file (\d+)$/m.exec(statistics)?.[1] ?? 0);
  return { totalBytes: limit, availableBytes: Math.max(0, Math.min(limit, limit - used + cached)) };
}

/** The number in a file; undefined for "max", which is no limit. */
function numberIn(path: string): number | undefined {
  const text = readText(path).trim();
  return /^\d+$/.test(text) ? Number(text) : undefined;
}

/** What a file holds; nothing when it is not there, as outside Linux. */
function readText(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
