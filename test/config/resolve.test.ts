import { expect, test } from "bun:test";
import {
  type Environment,
  type GivenFlag,
  type Resolution,
  resolveSettings,
} from "../../src/config/resolve.ts";
import { SETTINGS, type SettingKey } from "../../src/config/settings.ts";
import type { CommandName, SettingDeclaration } from "../../src/config/types.ts";
import { MistralError } from "../../src/errors.ts";

function resolve(
  command: CommandName,
  flags: ReadonlyMap<SettingKey, GivenFlag>,
  environment: Environment,
): Resolution {
  return resolveSettings(command, { flags, environment });
}

function flag(key: SettingKey, text: string | number): Map<SettingKey, GivenFlag> {
  return new Map([[key, { name: (SETTINGS[key] as SettingDeclaration).flag ?? key, text }]]);
}

function failure(work: () => unknown): MistralError {
  try {
    work();
  } catch (error) {
    if (error instanceof MistralError) return error;
    throw error;
  }
  throw new Error("expected a MistralError");
}

test("the names and defaults that users of mistral.rs rely on", () => {
  const { settings } = resolve("serve", new Map(), {});
  expect(settings.host).toBe("0.0.0.0");
  expect(settings.port).toBe(1234);
  expect(settings.keepAliveIntervalMs).toBe(10_000);
  expect(settings.sequencesMax).toBe(16);
  expect(settings.prefixCacheEntries).toBe(16);
  expect(settings.cacheBlockSize).toBe(32);
});

test("MISTRALRS_NO_MMAP counts only when it is exactly 1", () => {
  const noMmap = (value: string) => resolve("serve", new Map(), { MISTRALRS_NO_MMAP: value }).settings.noMmap;
  expect(noMmap("1")).toBe(true);
  for (const value of ["0", "true", "11", "yes"]) expect(noMmap(value)).toBe(false);
});

test("HF_TOKEN is stronger than HF_HUB_TOKEN", () => {
  const { settings } = resolve("serve", new Map(), { HF_HUB_TOKEN: "weak", HF_TOKEN: "strong" });
  expect(settings.hubToken).toBe("strong");
});

test("a near miss of a choice is pointed out", () => {
  const error = failure(() => resolve("serve", flag("cacheType", "bf61"), {}));
  expect(error.message).toContain("one of auto, f16, bf16, f32, f8e4m3 (did you mean bf16?)");
});

test("numbers are whole numbers in their usual form", () => {
  for (const text of ["", "1e3", "0x10", "12.5", "12abc", "NaN", "Infinity"]) {
    expect(failure(() => resolve("serve", flag("port", text), {})).message).toContain("--port");
  }
});

test("two sizes of the KV cache exclude each other, and the message names both", () => {
  const flags = new Map([...flag("cacheContextLength", "4096"), ...flag("cacheMemoryMb", "100")]);
  const { message } = failure(() => resolve("serve", flags, {}));
  expect(message).toContain("--pa-context-len");
  expect(message).toContain("--pa-memory-mb");
});

test("every two of the three sizes of the KV cache exclude each other", () => {
  const sizes = { cacheContextLength: "4096", cacheMemoryMb: "100", cacheMemoryFraction: "0.5" } as const;
  const keys = Object.keys(sizes) as (keyof typeof sizes)[];
  for (const one of keys) {
    expect(resolve("serve", flag(one, sizes[one]), {}).settings[one]).toBe(Number(sizes[one]));
    for (const other of keys) {
      if (one === other) continue;
      const both = new Map([...flag(one, sizes[one]), ...flag(other, sizes[other])]);
      expect(failure(() => resolve("serve", both, {})).message).toContain("both size the KV cache");
    }
  }
});

test("a block size is one of three, and none where blocks are as long as the context", () => {
  for (const size of ["8", "16", "32"]) {
    expect(resolve("serve", flag("cacheBlockSize", size), {}).settings.cacheBlockSize).toBe(
      Number(size) as 8,
    );
  }
  const wrong = failure(() => resolve("serve", flag("cacheBlockSize", "64"), {}));
  expect(wrong.message).toContain('--pa-block-size has the value "64"; allowed: one of 8, 16, 32');
  const off = flag("pagedAttention", "off");
  expect(resolve("serve", off, {}).settings.pagedAttention).toBe("off");
  const conflict = failure(() => resolve("serve", new Map([...off, ...flag("cacheBlockSize", "16")]), {}));
  expect(conflict.message).toContain("--pa-block-size (16 tokens) can have no effect");
});

test("a step must have room for a token of each sequence", () => {
  const error = failure(() => resolve("serve", flag("batchedTokensMax", "8"), {}));
  expect(error.message).toContain("--max-seqs is 16 (default)");
  expect(resolve("bench", flag("batchedTokensMax", "8"), {}).settings.batchedTokensMax).toBe(8);
});

test("a setting of another command is left alone", () => {
  expect(resolve("bench", new Map(), { KEEP_ALIVE_INTERVAL: "x" }).warnings).toEqual([]);
});

test("a misspelt variable is pointed out, what is another program's is left alone", () => {
  const { warnings } = resolve("serve", new Map(), {
    MISTRALRS_NO_MMPA: "1",
    MISTRAL_KEY: "x",
    PATH: "/bin",
  });
  expect(warnings).toEqual(["variable MISTRALRS_NO_MMPA is not a setting (did you mean MISTRALRS_NO_MMAP?)"]);
});

test("MISTRALRS_DEBUG is on for every value that contains a 1, MISTRALRS_ISQ_SINGLETHREAD for every value", () => {
  const debug = (value: string) => resolve("serve", new Map(), { MISTRALRS_DEBUG: value }).settings.debug;
  for (const value of ["1", "11", "x1"]) expect(debug(value)).toBe(true);
  for (const value of ["0", "true", "yes", ""]) expect(debug(value)).toBe(false);
  const single = (value: string) =>
    resolve("serve", new Map(), { MISTRALRS_ISQ_SINGLETHREAD: value }).settings.isqSingleThread;
  for (const value of ["1", "0", "no", ""]) expect(single(value)).toBe(true);
});

test("MISTRALRS_IGPU_MEMORY_FRACTION falls back to 0.75 for what is no fraction", () => {
  for (const value of ["1.5", "-0.1", "half", "NaN"]) {
    const { settings, warnings } = resolve("serve", new Map(), { MISTRALRS_IGPU_MEMORY_FRACTION: value });
    expect(settings.integratedMemoryFraction).toBe(0.75);
    expect(warnings.join()).toContain("using 0.75");
  }
});

test("several whole numbers are one setting; each of them is checked", () => {
  const depth = (text: string) => resolve("bench", flag("depth", text), {}).settings.depth;
  expect(depth("0")).toEqual([0]);
  expect(depth("0, 512,1024")).toEqual([0, 512, 1024]);
  for (const text of ["", "1,", "1,x", "-1", "1.5"])
    expect(() => depth(text)).toThrow("several are separated by commas");
});
