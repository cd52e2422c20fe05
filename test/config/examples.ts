/** For every setting a text that it accepts, the value that stands for, and a text that it must refuse. */

import type { SettingValue } from "../../src/config/parse-value.ts";
import type { Environment } from "../../src/config/resolve.ts";
import type { SettingKey } from "../../src/config/settings.ts";
import type { SettingDeclaration, SwitchRule } from "../../src/config/types.ts";

export interface Example {
  readonly text: string;
  readonly value: SettingValue;
  /** The value as a configuration file writes it. */
  readonly toml: unknown;
  /** Undefined where every text means something. */
  readonly bad?: string;
  readonly badToml: unknown;
}

/** Texts that fit patterns. */
const PATTERNED: Partial<Record<SettingKey, { readonly text: string; readonly bad: string }>> = {
  hubTokenSource: { text: "env:MY_TOKEN", bad: "file:x" },
  newToken: { text: "hf_abc", bad: "abc" },
  workerServerAddress: { text: "10.0.0.1:5000", bad: "head.example.com:5000" },
  cudaComputeCapability: { text: "8.9, 90,121", bad: "89,50" },
  device: { text: "cpu", bad: "cuda:first" },
  metalPlatforms: { text: "macos,ios", bad: "macos,windows" },
};

/** What else must be set for a setting to make sense. */
const COMPANIONS: Partial<Record<SettingKey, Environment>> = {
  globalWorldSize: { MISTRALRS_MN_HEAD_NUM_WORKERS: "299", MISTRALRS_MN_HEAD_PORT: "5000" },
  headWorkers: { MISTRALRS_MN_GLOBAL_WORLD_SIZE: "301", MISTRALRS_MN_HEAD_PORT: "5000" },
  headPort: { MISTRALRS_MN_GLOBAL_WORLD_SIZE: "2", MISTRALRS_MN_HEAD_NUM_WORKERS: "1" },
  workerServerAddress: { MISTRALRS_MN_GLOBAL_WORLD_SIZE: "2", MISTRALRS_MN_WORKER_ID: "0" },
  workerId: { MISTRALRS_MN_GLOBAL_WORLD_SIZE: "302", MISTRALRS_MN_WORKER_SERVER_ADDR: "10.0.0.1:5000" },
};

export function companionsOf(key: SettingKey): Environment {
  return COMPANIONS[key] ?? {};
}

export function exampleOf(key: SettingKey, declaration: SettingDeclaration): Example {
  const { type } = declaration;
  switch (type.kind) {
    case "integer": {
      const value = Math.max(type.min, Math.min(300, type.max));
      return {
        text: String(value),
        value,
        toml: value,
        bad: String(type.max + 1),
        badToml: String(value),
      };
    }
    case "integers":
      if (type.isSet === true) {
        return { text: "8, 0-2,1", value: [0, 1, 2, 8], toml: [8, 0, 1, 2], bad: "2-0", badToml: "x" };
      }
      return { text: "7, 8", value: [7, 8], toml: [7, 8], bad: "7,,8", badToml: "x" };
    case "number":
      return {
        text: String(type.max / 2),
        value: type.max / 2,
        toml: type.max / 2,
        bad: String(type.max + 1),
        badToml: "x",
      };
    case "count":
      return {
        text: String(type.max),
        value: type.max,
        toml: type.max,
        bad: String(type.max + 1),
        badToml: "x",
      };
    case "u64":
      return {
        text: "18446744073709551615",
        value: 2n ** 64n - 1n,
        toml: "18446744073709551615",
        bad: "18446744073709551616",
        badToml: -1,
      };
    case "text": {
      const { text, bad } = PATTERNED[key] ?? { text: "some/thing", bad: "  " };
      return { text, value: text, toml: text, bad, badToml: 7 };
    }
    case "path": {
      const path = `some/thing${type.extensions?.[0] ?? ""}`;
      const bad = type.extensions === undefined ? "  " : "some/thing.doc";
      return { text: path, value: path, toml: path, bad, badToml: true };
    }
    case "url": {
      const address = "https://example.com/hub";
      return { text: address, value: address, toml: address, bad: "example.com", badToml: 1 };
    }
    case "list": {
      const separator = type.separator ?? ",";
      const value = ["one", "name=two"];
      return {
        text: value.join(`${separator} `),
        value,
        toml: value,
        bad: `one${separator}${separator}two`,
        badToml: [1],
      };
    }
    case "choice": {
      const value = type.choices.at(-1)!;
      return { text: String(value), value, toml: value, bad: "no such choice", badToml: "no such choice" };
    }
    case "boolean":
      return { text: "false", value: false, toml: false, bad: "yes", badToml: "yes" };
    case "switch":
      return { ...switchExample(type.on), toml: true, badToml: "yes" };
  }
}

function switchExample(on: SwitchRule): { text: string; value: SettingValue } {
  if ("containing" in on) return { text: `x${on.containing}`, value: true };
  if ("except" in on) return { text: on.except[0] ?? "anything", value: on.except.length === 0 };
  return { text: on[0] ?? "", value: true };
}
