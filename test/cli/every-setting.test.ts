/**
 * Every setting as a user gives it, to real processes: all variables at once and all flags at once, seen in what
 * `config explain --json` prints; then for each setting a value that is none, and what the process says of it.
 */

import { describe, expect, test } from "bun:test";
import type { SettingReport } from "../../src/config/explain.ts";
import { showValue } from "../../src/config/parse-value.ts";
import { type SettingKey, settingEntries } from "../../src/config/settings.ts";
import type { CommandName, SettingDeclaration } from "../../src/config/types.ts";
import { companionsOf, exampleOf } from "../config/examples.ts";
import { runCommand } from "./processes.ts";

type Row = readonly [SettingKey, SettingDeclaration];

/** Settings that exclude others, so that not all can be given at once; each is given alone. */
const ALONE: ReadonlySet<SettingKey> = new Set([
  "cacheMemoryMb",
  "cacheMemoryFraction",
  "pagedAttention",
  "noWebUi",
  "ringConfig",
  "globalWorldSize",
  "localWorldSize",
  "headWorkers",
  "headPort",
  "workerServerAddress",
  "workerId",
  "noNccl",
  "configFile",
]);

const NAMELESS_ENVIRONMENT = { HF_HUB_OFFLINE: "", HF_HOME: "", XDG_CACHE_HOME: "" };

async function explain(flags: readonly string[], environment: Record<string, string>) {
  const outcome = await runCommand(["config", "explain", "--json", ...flags], { environment });
  expect({ status: outcome.status, stderr: outcome.status === 0 ? "" : outcome.stderr }).toEqual({
    status: 0,
    stderr: "",
  });
  return new Map((JSON.parse(outcome.stdout) as SettingReport[]).map((row) => [row.key, row]));
}

function given([key, declaration]: Row): string {
  return showValue(declaration, exampleOf(key, declaration).value);
}

/** The flag with its value, as it is typed. */
function typed([key, declaration]: Row): string[] {
  const { flag = "", type } = declaration;
  if (type.kind === "switch") return [flag];
  if (type.kind === "count") return Array.from({ length: type.max }, () => flag);
  return [`${flag}=${exampleOf(key, declaration).text}`];
}

/** A command that takes the flag. */
function commandOf({ commands }: SettingDeclaration): CommandName {
  const own = commands.find((name) => name !== "build" && name !== "quantize");
  return own === undefined || commands.includes("serve") ? "serve" : own;
}

const rows = settingEntries();
const withVariable = rows.filter(([, { environment }]) => environment !== undefined);
const withFlag = rows.filter(
  ([, declaration]) => declaration.flag !== undefined && declaration.commands.includes("serve"),
);

describe("set all at once, each is in force and says where it came from", () => {
  const expectSet = (report: ReadonlyMap<SettingKey, SettingReport>, row: Row, source: string): void => {
    const [key, declaration] = row;
    const found = report.get(key);
    expect({ key, value: found?.value, source: found?.source }).toEqual({ key, value: given(row), source });
    const isElsewhere = declaration.onlyOn !== undefined && process.platform !== "linux";
    expect(found?.status === "not in effect").toBe(
      isElsewhere ||
        (declaration.notBuilt !== undefined &&
          declaration.notBuilt.except?.some((value) => value === exampleOf(key, declaration).value) !==
            true &&
          exampleOf(key, declaration).value !== declaration.default),
    );
  };

  test("by variables, the strongest name of each", async () => {
    const together = withVariable.filter(([key]) => !ALONE.has(key));
    expect(together.length).toBeGreaterThan(45);
    const environment = Object.fromEntries(
      together.map((row) => [row[1].environment![0]!, exampleOf(...row).text]),
    );
    const report = await explain([], { ...NAMELESS_ENVIRONMENT, ...environment });
    for (const row of together) expectSet(report, row, `variable ${row[1].environment![0]}`);
  });

  test("by flags, which are stronger than the variables", async () => {
    const together = withFlag.filter(([key]) => !ALONE.has(key));
    expect(together.length).toBeGreaterThan(80);
    const environment = Object.fromEntries(
      together.flatMap((row) =>
        (row[1].environment ?? []).map((name) => [name, exampleOf(...row).bad ?? "0"]),
      ),
    );
    const report = await explain(together.flatMap(typed), { ...NAMELESS_ENVIRONMENT, ...environment });
    for (const row of together) expectSet(report, row, `flag ${row[1].flag}`);
  });
});

describe("a value that is none ends the process with status 2 and one line", () => {
  const cases = rows.flatMap(
    (row): { name: string; run: () => ReturnType<typeof runCommand>; where: string }[] => {
      const [key, declaration] = row;
      const { environment, flag, lenientEnvironment } = declaration;
      const { bad } = exampleOf(key, declaration);
      if (bad === undefined) return [];
      const [variable] = environment ?? [];
      if (variable !== undefined && lenientEnvironment !== true) {
        const set = { ...companionsOf(key), [variable]: bad } as Record<string, string>;
        const run = () => runCommand(["config", "explain"], { environment: set });
        return [{ name: `${key} by ${variable}`, run, where: `variable ${variable}` }];
      }
      if (flag === undefined || declaration.type.kind === "switch" || declaration.type.kind === "count")
        return [];
      if (declaration.commands.every((command) => command === "quantize")) return [];
      const command = commandOf(declaration).split(" ");
      const run = () => runCommand([...command, `${flag}=${bad}`]);
      return [{ name: `${key} by ${flag}`, run, where: `flag ${flag}` }];
    },
  );

  test("there are cases of most settings", () => {
    expect(cases.length).toBeGreaterThan(90);
  });

  test.each(cases.map((entry) => [entry.name, entry] as const))("%s", async (_name, { run, where }) => {
    const { status, stdout, stderr } = await run();
    expect({ status, stdout, lines: stderr.split("\n").length }).toEqual({ status: 2, stdout: "", lines: 2 });
    expect(stderr).toStartWith(`error: ${where} has the value `);
    expect(stderr).toContain("; allowed: ");
  });
});
