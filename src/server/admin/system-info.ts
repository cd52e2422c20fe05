/** What this machine and this build are, as plain data: what `/v1/system/info` answers and a doctor begins with. */

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { arch, availableParallelism, cpus, freemem, release, totalmem, type } from "node:os";
import { join } from "node:path";
import { t } from "elysia";
import packageJson from "../../../package.json" with { type: "json" };
import { Device } from "../../backend/device.ts";
import { isCudaBuilt } from "../../backend/library.ts";
import { type Environment, hubCacheFolder } from "../../weights/cache-paths.ts";

const nullable = <Schema extends Parameters<typeof t.Union>[0][number]>(schema: Schema) =>
  t.Union([schema, t.Null()]);

export const SystemInfo = t.Object({
  os: t.String(),
  kernel: t.String(),
  cpu: t.Object({
    brand: t.String(),
    architecture: t.String(),
    /** Hardware threads this process may use. */
    logical_cores: t.Integer(),
    /** Null where the system does not tell. */
    physical_cores: nullable(t.Integer()),
    avx: t.Boolean(),
    avx2: t.Boolean(),
    avx512: t.Boolean(),
    fma: t.Boolean(),
    neon: t.Boolean(),
  }),
  memory: t.Object({ total_bytes: t.Integer(), available_bytes: t.Integer() }),
  devices: t.Array(
    t.Object({
      kind: t.String(),
      ordinal: t.Integer(),
      name: t.String(),
      total_memory_bytes: t.Integer(),
      /** Null for a device that would have to be opened to be asked. */
      available_memory_bytes: nullable(t.Integer()),
      /** Of a GPU, such as 9.0. */
      compute_capability: t.Optional(t.String()),
      /** Of a GPU: it has no memory of its own. */
      unified_memory: t.Optional(t.Boolean()),
    }),
  ),
  build: t.Object({
    version: t.String(),
    git_revision: nullable(t.String()),
    bun: t.String(),
    cuda: t.Boolean(),
    metal: t.Boolean(),
    /** Kernel libraries that were built, by instruction set. */
    kernels: t.Array(t.String()),
  }),
  hf_cache_path: t.String(),
  /** Every setting of a running server; secrets are not shown. */
  settings: t.Optional(
    t.Array(
      t.Object({
        key: t.String(),
        value: t.String(),
        /** What set it, such as "flag --port". */
        source: t.String(),
        status: t.Union([t.Literal("in effect"), t.Literal("not in effect")]),
      }),
    ),
  ),
});
export type SystemInfo = typeof SystemInfo.static;

const ROOT = join(import.meta.dir, "..", "..", "..");

/** Reads small files only; takes about a millisecond. */
export function systemInfo(environment: Environment): SystemInfo {
  const flags = processorFlags();
  const brand = cpus()[0]?.model ?? arch();
  const memory = { total_bytes: totalmem(), available_bytes: availableMemory() };
  return {
    os: type(),
    kernel: release(),
    cpu: {
      brand,
      architecture: arch(),
      logical_cores: availableParallelism(),
      physical_cores: physicalCores(),
      avx: flags.has("avx"),
      avx2: flags.has("avx2"),
      avx512: flags.has("avx512f"),
      fma: flags.has("fma"),
      neon: arch() === "arm64",
    },
    memory,
    devices: [
      {
        kind: "cpu",
        ordinal: 0,
        name: brand,
        total_memory_bytes: memory.total_bytes,
        available_memory_bytes: memory.available_bytes,
      },
      ...cudaDevices(),
    ],
    build: {
      version: packageJson.version,
      git_revision: gitRevision(),
      bun: Bun.version,
      cuda: isCudaBuilt(),
      metal: false,
      kernels: builtKernels(),
    },
    hf_cache_path: hubCacheFolder(environment),
  };
}

/** What the driver tells of its devices; none where CUDA cannot be used, which the doctor explains. */
function cudaDevices(): SystemInfo["devices"] {
  if (!isCudaBuilt()) return [];
  try {
    return Array.from({ length: Device.cudaCount() }, (_, ordinal) => {
      const { info, memory } = Device.describeCuda(ordinal);
      return {
        kind: "cuda",
        ordinal,
        name: info.name,
        total_memory_bytes: memory.total,
        available_memory_bytes: null,
        compute_capability: info.instructionSet.replace(/^sm_(\d+)(\d)$/, "$1.$2"),
        unified_memory: info.integrated,
      };
    });
  } catch {
    return [];
  }
}

function processorFlags(): ReadonlySet<string> {
  const line = /^(?:flags|Features)\s*:\s*(.*)$/m.exec(read("/proc/cpuinfo"))?.[1] ?? "";
  return new Set(line.split(/\s+/));
}

function physicalCores(): number | null {
  const cores = new Set<string>();
  for (const block of read("/proc/cpuinfo").split("\n\n")) {
    const socket = /^physical id\s*:\s*(\d+)$/m.exec(block)?.[1];
    const core = /^core id\s*:\s*(\d+)$/m.exec(block)?.[1];
    if (core !== undefined) cores.add(`${socket ?? 0} ${core}`);
  }
  return cores.size === 0 ? null : cores.size;
}

/** What can be had without swapping, caches included. */
function availableMemory(): number {
  const kibibytes = /^MemAvailable:\s+(\d+) kB$/m.exec(read("/proc/meminfo"))?.[1];
  return kibibytes === undefined ? freemem() : Number(kibibytes) * 1024;
}

function builtKernels(): string[] {
  const folder = join(ROOT, "zig-out", "lib");
  if (!existsSync(folder)) return [];
  return readdirSync(folder)
    .map((name) => /^libmistral_cpu\.(\w+)\.(?:so|dylib)$/.exec(name)?.[1])
    .filter((name) => name !== undefined)
    .sort();
}

function gitRevision(): string | null {
  const head = read(join(ROOT, ".git", "HEAD")).trim();
  const reference = /^ref: (\S+)$/.exec(head)?.[1];
  const revision = reference === undefined ? head : read(join(ROOT, ".git", reference)).trim();
  return /^[0-9a-f]{40}$/.test(revision) ? revision : null;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
