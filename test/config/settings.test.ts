import { expect, test } from "bun:test";
import { parseValue } from "../../src/config/parse-value.ts";
import { settingEntries } from "../../src/config/settings.ts";

test("no two settings of a command share a flag, a letter or a variable", () => {
  for (const command of ["serve", "bench"] as const) {
    const names = settingEntries()
      .filter(([, { commands }]) => commands.includes(command))
      .flatMap(([, { flag, short, aliases, environment }]) => [
        ...(flag === undefined ? [] : [flag]),
        ...(short === undefined ? [] : [`-${short}`]),
        ...(aliases ?? []),
        ...(environment ?? []),
      ]);
    expect(names.length).toBeGreaterThan(10);
    expect(names.filter((name, index) => names.indexOf(name) !== index)).toEqual([]);
  }
});

test("every default is a value its own type accepts", () => {
  for (const [key, declaration] of settingEntries()) {
    if (declaration.default === undefined) {
      expect(declaration.unsetText, key).toBeString();
    } else if (declaration.type.kind === "switch") {
      expect(declaration.default, key).toBe(false);
    } else {
      const parsed = parseValue(declaration.type, String(declaration.default));
      expect(parsed, key).toEqual({ ok: true, value: declaration.default });
    }
  }
});

test("every setting can be set by something", () => {
  for (const [key, { flag, environment }] of settingEntries()) {
    expect(flag ?? environment?.[0], key).toBeString();
  }
});
