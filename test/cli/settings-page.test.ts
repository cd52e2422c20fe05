import { expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { SETTINGS_PAGE, settingsPage } from "../../src/cli/settings-page.ts";
import { settingEntries } from "../../src/config/settings.ts";

test("docs/configuration.md is current", () => {
  // If this fails: bun src/cli/settings-page.ts --write
  expect(readFileSync(SETTINGS_PAGE, "utf8")).toBe(settingsPage());
});

test("the page has every flag, variable and key, and says what is not in effect", () => {
  const page = settingsPage();
  for (const [, { flag, environment, toml, notBuilt }] of settingEntries()) {
    for (const name of [...(flag === undefined ? [] : [flag]), ...(environment ?? []), ...(toml ?? [])]) {
      const line =
        page.split("\n").find((candidate) => candidate.includes(`\`${name}\``)) ?? `no row for ${name}`;
      expect(line).toContain(notBuilt === undefined ? "in effect" : "not in effect");
    }
  }
});
