import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { withSettingsTable } from "../../src/cli/settings-table.ts";
import { PROJECT_ROOT } from "../../src/cli/setup.ts";
import { settingEntries } from "../../src/config/settings.ts";

const readme = readFileSync(join(PROJECT_ROOT, "README.md"), "utf8");

test("the README's table of settings is current", () => {
  // If this fails: bun src/cli/settings-table.ts --write
  expect(withSettingsTable(readme)).toBe(readme);
  for (const [, { flag, environment }] of settingEntries())
    expect(readme).toContain(`\`${flag ?? environment?.[0]}\``);
});

test("a README without the marks is refused instead of left stale", () => {
  expect(() => withSettingsTable("# nothing here")).toThrow("lost the marks");
});
