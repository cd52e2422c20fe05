/**
 * What a machine can do at best, against which speeds are judged: bytes read per second at a size of memory,
 * operations per second of f32, of bfloat16 and of 8-bit integers. Measured when first asked for, with a device's
 * threads.
 */

import { readdirSync, readFileSync } from "node:fs";
import type { DeviceInfo } from "../../backend/device-info.ts";
import { DTYPES, type DType } from "../../backend/dtype.ts";
import { type Measurement, measureRate } from "../../backend/measure.ts";

/** Which instructions do an op's arithmetic. */
export const ARITHMETICS = ["f32", "bf16", "int8"] as const;
export type Arithmetic = (typeof ARITHMETICS)[number];

/** What the fastest kernels multiply weights of a type as. */
export function arithmeticOf(dtype: DType): Arithmetic {
  if (DTYPES[dtype].blockElements > 1) return "int8";
  // An f16 is two bf16.
  return dtype === "bf16" || dtype === "f16" ? "bf16" : "f32";
}

const SECONDS_PER_MEASUREMENT = 0.2;
/** Memory of two sizes that differ by less than this is read equally fast. */
const SIZE_STEP = 1.25;
const READ_BYTES_MIN = 1 << 16;

/** Which threads of the processor are measured. */
export type Computer = Pick<DeviceInfo, "threads" | "instructionSet">;

interface Limit {
  readonly what: Measurement;
  readonly bytes: number;
  readonly perSecond: number;
}

export class MachineLimits {
  readonly #device: Computer;
  readonly #known = new Map<string, Limit>();

  constructor(device: Computer) {
    this.#device = device;
  }

  /** Bytes per second read from `bytes` of memory over and over: below a cache's size that is the cache. */
  readBytesPerSecond(bytes: number): number {
    const step = Math.round(
      Math.log(Math.max(bytes, READ_BYTES_MIN * this.#device.threads)) / Math.log(SIZE_STEP),
    );
    return this.#limit("read", Math.round(SIZE_STEP ** step));
  }

  /** Multiply-adds of f32, two operations each. */
  get f32OpsPerSecond(): number {
    return this.#limit("f32_multiply_add");
  }

  /** Dot products of 8-bit integers in vector registers. */
  get int8DotOpsPerSecond(): number {
    return this.#limit("int8_dot");
  }

  /** The same in the tile unit; undefined where there is none. */
  get int8TileOpsPerSecond(): number | undefined {
    return this.#hasTiles ? this.#limit("int8_tile") : undefined;
  }

  /** Multiply-adds of bfloat16 in the tile unit; undefined where there is none. */
  get bf16TileOpsPerSecond(): number | undefined {
    return this.#hasTiles ? this.#limit("bf16_tile") : undefined;
  }

  get #hasTiles(): boolean {
    return this.#device.instructionSet === "x86_64_v4_amx";
  }

  /** The best there is for an arithmetic. */
  opsPerSecond(arithmetic: Arithmetic): number {
    if (arithmetic === "f32") return this.f32OpsPerSecond;
    // Without tiles they are widened to f32.
    if (arithmetic === "bf16") return this.bf16TileOpsPerSecond ?? this.f32OpsPerSecond;
    return Math.max(this.int8DotOpsPerSecond, this.int8TileOpsPerSecond ?? 0);
  }

  /**
   * Measures everything again that was asked for so far and keeps the better figures. A machine that is shared can be
   * half as fast for a while, and what is compared with that seems to do more than is possible.
   */
  measureAgain(): void {
    for (const [key, { what, bytes, perSecond }] of this.#known) {
      this.#known.set(key, { what, bytes, perSecond: Math.max(perSecond, this.#measure(what, bytes)) });
    }
  }

  #limit(what: Measurement, bytes = 0): number {
    const key = `${what} ${bytes}`;
    const known = this.#known.get(key);
    if (known !== undefined) return known.perSecond;
    const perSecond = this.#measure(what, bytes);
    this.#known.set(key, { what, bytes, perSecond });
    return perSecond;
  }

  #measure(what: Measurement, bytes: number): number {
    const { threads, instructionSet } = this.#device;
    return measureRate({ what, threads, instructionSet, bytes, seconds: SECONDS_PER_MEASUREMENT }).best;
  }
}

/** Assumed where the system does not tell. */
const LAST_LEVEL_CACHE_BYTES = 64 * 2 ** 20;
const PROCESSORS = "/sys/devices/system/cpu";

/** Bytes of all last-level caches together; memory that is to be read past them has to be larger. */
export function lastLevelCacheBytes(root = PROCESSORS): number {
  const caches = new Map<string, { readonly level: number; readonly bytes: number }>();
  for (const processor of list(root).filter((name) => /^cpu\d+$/.test(name))) {
    for (const index of list(`${root}/${processor}/cache`)) {
      const read = (name: string): string => text(`${root}/${processor}/cache/${index}/${name}`);
      if (read("type") === "Instruction") continue;
      const bytes = cacheBytes(read("size"));
      if (bytes > 0)
        caches.set(`${read("level")} ${read("shared_cpu_list")}`, { level: Number(read("level")), bytes });
    }
  }
  const last = Math.max(0, ...[...caches.values()].map(({ level }) => level));
  const total = [...caches.values()]
    .filter(({ level }) => level === last)
    .reduce((sum, { bytes }) => sum + bytes, 0);
  return total === 0 ? LAST_LEVEL_CACHE_BYTES : total;
}

/** `491520K` */
function cacheBytes(size: string): number {
  const match = /^(\d+)([KMG]?)$/.exec(size);
  if (match === null) return 0;
  return Number(match[1]) * 1024 ** ["", "K", "M", "G"].indexOf(match[2]!);
}

function list(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function text(path: string): string {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return "";
  }
}
