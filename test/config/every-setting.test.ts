/** Every row of the table: default, each way to set it, a bad value in each of them, and which way is stronger. */

import { describe, expect, test } from "bun:test";
import type { ConfigFile } from "../../src/config/config-file.ts";
import { type GivenFlag, resolveSettings, type SettingInputs } from "../../src/config/resolve.ts";
import { type SettingKey, settingEntries } from "../../src/config/settings.ts";
import { showSource } from "../../src/config/sources.ts";
import { MistralError } from "../../src/errors.ts";
import { companionsOf, exampleOf } from "./examples.ts";

const FILE = "some.toml";

function file(key: string, value: unknown): ConfigFile {
  const values = new Map([[key, value]]);
  const isOfModel = key.startsWith("models.");
  return {
    path: FILE,
    command: undefined,
    values: isOfModel ? new Map() : values,
    models: isOfModel
      ? [values]
      : key === "default_model_id"
        ? [new Map([["models.model_id", "some/thing"]])]
        : [],
  };
}

function flags(key: SettingKey, name: string, text: string): ReadonlyMap<SettingKey, GivenFlag> {
  return new Map([[key, { name, text }]]);
}

/** What explains settings takes every one of them, built or not. */
function resolve(inputs: SettingInputs) {
  return resolveSettings("config explain", inputs);
}

function failure(inputs: SettingInputs): MistralError {
  try {
    resolve(inputs);
  } catch (error) {
    if (error instanceof MistralError) return error;
    throw error;
  }
  throw new Error("expected a MistralError");
}

/** One line with the place, the value unless it is a secret, and what is allowed. */
function expectComplaint(error: MistralError, where: string, value: unknown, secret: boolean): void {
  expect(error.code).toBe("invalid_configuration");
  expect(error.message).toStartWith(`${where} has the value ${secret ? "(hidden)" : JSON.stringify(value)}`);
  expect(error.message).toContain("; allowed: ");
  expect(error.message).not.toContain("\n");
  if (secret && typeof value === "string") expect(error.message).not.toContain(value);
}

for (const [key, declaration] of settingEntries()) {
  const { flag, aliases, environment, toml, secret = false } = declaration;
  const example = exampleOf(key, declaration);
  const companions = companionsOf(key);

  describe(key, () => {
    test("default", () => {
      const { settings, sources, warnings } = resolve({});
      expect(settings[key]).toEqual(declaration.default as never);
      expect(sources[key]).toEqual({ kind: "default" });
      expect(warnings).toEqual([]);
    });

    for (const name of environment ?? []) {
      test(`variable ${name}`, () => {
        const { settings, sources } = resolve({ environment: { ...companions, [name]: example.text } });
        expect(settings[key]).toEqual(example.value as never);
        expect(sources[key]).toEqual({ kind: "environment", name });
        if (example.bad === undefined) return;
        const bad = { environment: { ...companions, [name]: example.bad } };
        if (declaration.lenientEnvironment === true) {
          expect(resolve(bad).settings[key]).toEqual(declaration.default as never);
          expect(resolve(bad).warnings.join()).toContain(`variable ${name} has the value`);
        } else {
          expectComplaint(failure(bad), `variable ${name}`, example.bad, secret);
        }
      });
    }

    for (const name of flag === undefined ? [] : [flag, ...(aliases ?? [])]) {
      test(`flag ${name}, stronger than variables and keys`, () => {
        const { settings, sources } = resolve({
          flags: flags(key, name, example.text),
          environment: Object.fromEntries(
            (environment ?? []).map((variable) => [variable, example.bad ?? "0"]),
          ),
          ...(toml === undefined ? {} : { file: file(toml[0]!, example.badToml) }),
        });
        expect(settings[key]).toEqual(example.value as never);
        expect(showSource(sources[key])).toBe(`flag ${name}`);
        if (example.bad === undefined) return;
        expectComplaint(
          failure({ flags: flags(key, name, example.bad) }),
          `flag ${name}`,
          example.bad,
          secret,
        );
      });
    }

    for (const name of toml ?? []) {
      test(`key ${name}, weaker than variables`, () => {
        const { settings, sources } = resolve({ file: file(name, example.toml) });
        expect(settings[key]).toEqual((declaration.type.kind === "switch" ? true : example.value) as never);
        expect(sources[key]).toEqual({ kind: "file", name, path: FILE });
        expectComplaint(
          failure({ file: file(name, example.badToml) }),
          `key ${name} in ${FILE}`,
          example.badToml,
          secret,
        );
        const [variable] = environment ?? [];
        if (variable === undefined) return;
        const both = resolve({
          environment: { [variable]: example.text },
          file: file(name, example.badToml),
        });
        expect(both.sources[key].kind).toBe("environment");
      });
    }
  });
}

describe("settings that are not built", () => {
  const rows = settingEntries().filter(([, { notBuilt }]) => notBuilt !== undefined);

  test("there are some of each kind", () => {
    expect(rows.length).toBeGreaterThan(50);
  });

  for (const [key, declaration] of rows) {
    const { flag, environment, toml, notBuilt, commands } = declaration;
    const command = commands.find((name) => name !== "build" && name !== "quantize");
    if (command === undefined) continue;
    const { text, toml: tomlValue, value } = exampleOf(key, declaration);
    const isExcepted = notBuilt?.except?.some((exception) => exception === value) === true;
    const isDefault = value === declaration.default;
    if (isExcepted || isDefault) continue;

    test(`${key} is said not to be in effect`, () => {
      const because = notBuilt!.because;
      const [variable] = environment ?? [];
      if (variable !== undefined) {
        const inputs = { environment: { ...companionsOf(key), [variable]: text } };
        const { warnings } = resolveSettings(command, inputs);
        expect(warnings.filter((line) => line.startsWith(`variable ${variable} `))).toEqual([
          expect.stringContaining(`is not in effect: ${because}`),
        ]);
      }
      const others: SettingInputs[] = [
        ...(flag === undefined ? [] : [{ flags: flags(key, flag, text) }]),
        ...(toml ?? []).map((name) => ({ file: file(name, tomlValue) })),
      ];
      for (const inputs of others) {
        if (notBuilt?.refused === true) {
          expect(() => resolveSettings(command, inputs)).toThrow(`is not available: ${because}`);
        } else {
          expect(resolveSettings(command, inputs).warnings.join()).toContain(`is not in effect: ${because}`);
        }
      }
    });
  }
});
