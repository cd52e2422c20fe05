import { describe, expect, test } from "bun:test";
import type { SettingValue } from "../../src/config/parse-value.ts";
import { type GivenFlag, resolveSettings, showSource } from "../../src/config/resolve.ts";
import { SETTINGS, type SettingKey, settingEntries } from "../../src/config/settings.ts";
import type { SettingDeclaration } from "../../src/config/types.ts";
import { MistralError } from "../../src/errors.ts";

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

/** A text, the value it stands for, and a text that must be refused (if there is one). */
function examples({ type }: SettingDeclaration): { text: string; value: SettingValue; bad?: string } {
  switch (type.kind) {
    case "integer":
      return { text: "300", value: 300, bad: String(type.max + 1) };
    case "count":
      return { text: String(type.max), value: type.max, bad: String(type.max + 1) };
    case "u64":
      return { text: "18446744073709551615", value: 2n ** 64n - 1n, bad: "18446744073709551616" };
    case "text":
      return { text: "some/thing", value: "some/thing", bad: "  " };
    case "path": {
      const path = `some/thing${type.extensions?.[0] ?? ""}`;
      return { text: path, value: path, bad: type.extensions === undefined ? "  " : "some/thing.txt" };
    }
    case "url":
      return { text: "https://example.com/hub", value: "https://example.com/hub", bad: "example.com" };
    case "list":
      return { text: "one, name=two", value: ["one", "name=two"], bad: "one,,two" };
    case "choice":
      return { text: String(type.choices.at(-1)), value: type.choices.at(-1)!, bad: "no such choice" };
    case "switch":
      return { text: type.on[0] ?? "", value: true };
  }
}

describe("every setting", () => {
  for (const [key, declaration] of settingEntries()) {
    const command = declaration.commands[0]!;
    const { text, value, bad } = examples(declaration);

    test(`${key}: default`, () => {
      const { settings, sources } = resolveSettings(command, new Map(), {});
      expect(settings[key]).toEqual(declaration.default as never);
      expect(sources[key]).toEqual({ kind: "default" });
    });

    for (const variable of declaration.environment ?? []) {
      test(`${key}: variable ${variable}`, () => {
        const { settings, sources } = resolveSettings(command, new Map(), { [variable]: text });
        expect(settings[key]).toEqual(value as never);
        expect(sources[key]).toEqual({ kind: "environment", name: variable });
        const empty = resolveSettings(command, new Map(), { [variable]: "" });
        expect(empty.sources[key]).toEqual({ kind: "default" });
      });
      if (bad === undefined) continue;
      test(`${key}: unusable ${variable}`, () => {
        const resolve = () => resolveSettings(command, new Map(), { [variable]: bad });
        if (declaration.lenientEnvironment === true) {
          expect(resolve().settings[key]).toEqual(declaration.default as never);
          expect(resolve().warnings.join()).toContain(variable);
        } else {
          const error = failure(resolve);
          expect(error.code).toBe("invalid_configuration");
          expect(error.message).toContain(`variable ${variable}`);
          expect(error.message.includes(bad)).toBe(declaration.secret !== true);
        }
      });
    }

    if (declaration.flag === undefined) continue;
    test(`${key}: flag, stronger than its variable`, () => {
      const environment = Object.fromEntries(
        (declaration.environment ?? []).map((name) => [name, bad ?? "0"]),
      );
      const { settings, sources } = resolveSettings(command, flag(key, text), environment);
      expect(settings[key]).toEqual(value as never);
      expect(showSource(sources[key])).toBe(`flag ${declaration.flag}`);
    });
    if (bad === undefined) continue;
    test(`${key}: unusable flag`, () => {
      const error = failure(() => resolveSettings(command, flag(key, bad), {}));
      expect(error.code).toBe("invalid_configuration");
      expect(error.message).toContain(`flag ${declaration.flag}`);
      expect(error.message).toContain(JSON.stringify(bad));
      expect(error.message).toContain("allowed:");
    });
  }
});

test("the names and defaults that users of mistral.rs rely on", () => {
  const { settings } = resolveSettings("serve", new Map(), {});
  expect(settings.host).toBe("0.0.0.0");
  expect(settings.port).toBe(1234);
  expect(settings.keepAliveIntervalMs).toBe(10_000);
  expect(settings.sequencesMax).toBe(16);
  expect(settings.prefixCacheEntries).toBe(16);
  expect(settings.cacheBlockSize).toBe(32);
});

test("MISTRALRS_NO_MMAP counts only when it is exactly 1", () => {
  const noMmap = (value: string) =>
    resolveSettings("serve", new Map(), { MISTRALRS_NO_MMAP: value }).settings.noMmap;
  expect(noMmap("1")).toBe(true);
  for (const value of ["0", "true", "11", "yes"]) expect(noMmap(value)).toBe(false);
});

test("HF_TOKEN is stronger than HF_HUB_TOKEN", () => {
  const { settings } = resolveSettings("serve", new Map(), { HF_HUB_TOKEN: "weak", HF_TOKEN: "strong" });
  expect(settings.hubToken).toBe("strong");
});

test("a near miss of a choice is pointed out", () => {
  const error = failure(() => resolveSettings("serve", flag("cacheType", "bf61"), {}));
  expect(error.message).toContain("one of auto, f16, bf16, f32 (did you mean bf16?)");
});

test("numbers are whole numbers in their usual form", () => {
  for (const text of ["", "1e3", "0x10", "12.5", "12abc", "NaN", "Infinity"]) {
    expect(failure(() => resolveSettings("serve", flag("port", text), {})).message).toContain("--port");
  }
});

test("two sizes of the KV cache exclude each other, and the message names both", () => {
  const flags = new Map([...flag("cacheContextLength", "4096"), ...flag("cacheMemoryMb", "100")]);
  const { message } = failure(() => resolveSettings("serve", flags, {}));
  expect(message).toContain("--pa-context-len");
  expect(message).toContain("--pa-memory-mb");
});

test("a step must have room for a token of each sequence", () => {
  const error = failure(() => resolveSettings("serve", flag("batchedTokensMax", "8"), {}));
  expect(error.message).toContain("--max-seqs is 16 (default)");
  expect(resolveSettings("bench", flag("batchedTokensMax", "8"), {}).settings.batchedTokensMax).toBe(8);
});

test("a setting of another command is left alone", () => {
  expect(resolveSettings("bench", new Map(), { KEEP_ALIVE_INTERVAL: "x" }).warnings).toEqual([]);
});

test("a certificate without its key, or a key alone, is refused", () => {
  for (const key of ["tlsCertificate", "tlsKey"] as const) {
    const given = flag(key, "some.pem");
    expect(failure(() => resolveSettings("serve", given, {})).message).toContain("belong together");
  }
});
