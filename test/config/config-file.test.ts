import { describe, expect, test } from "bun:test";
import { parseConfigFile } from "../../src/config/config-file.ts";
import { resolveSettings } from "../../src/config/resolve.ts";
import { expectMistralError } from "../support/expect-error.ts";

function refuse(text: string, ...parts: string[]): void {
  expectMistralError(() => parseConfigFile(text, "x.toml"), "invalid_configuration", ...parts);
}

const TWO_MODELS = `
command = "serve"
default_model_id = "b"
[server]
port = 4321
[runtime]
max_seqs = 3
chat_template = "all.jinja"
[[models]]
kind = "text"
model_id = "a"
[models.format]
quantized_file = "a.gguf"
[[models]]
model_id = "b"
chat_template = "b.jinja"
`;

describe("a configuration file", () => {
  test("gives its values by key, and those of each model apart", () => {
    const file = parseConfigFile(TWO_MODELS, "x.toml");
    expect(file.command).toBe("serve");
    expect(Object.fromEntries(file.values)).toEqual({
      default_model_id: "b",
      "server.port": 4321,
      "runtime.max_seqs": 3,
      "runtime.chat_template": "all.jinja",
    });
    expect(file.models.map((model) => Object.fromEntries(model))).toEqual([
      { "models.kind": "text", "models.model_id": "a", "models.format.quantized_file": "a.gguf" },
      { "models.model_id": "b", "models.chat_template": "b.jinja" },
    ]);
  });

  test("resolves to settings for each model; those at the top are the default model's", () => {
    const resolution = resolveSettings("serve", { file: parseConfigFile(TWO_MODELS, "x.toml") });
    expect(resolution.settings.model).toBe("b");
    const rows = resolution.models.map(({ settings }) => [
      settings.model,
      settings.file,
      settings.chatTemplate,
    ]);
    expect(rows).toEqual([
      ["a", "a.gguf", "all.jinja"],
      ["b", undefined, "b.jinja"],
    ]);
    for (const { settings } of resolution.models) {
      expect(settings).toMatchObject({ port: 4321, sequencesMax: 3, prefixCacheEntries: 16 });
    }
  });

  test("that is not TOML is refused with the line", () => {
    refuse('[server]\nport = 1\nhost = "x\n[runtime]\n', "x.toml, at or after line 3: not TOML");
    refuse("a = \n", "at or after line 1");
    refuse("[server]\nport = [\n1,\n2\n", "at or after line 2");
  });

  test("with a key that is none is refused with the nearest one", () => {
    refuse("[server]\nprot = 1\n", "key server.prot in x.toml is not a key", "(did you mean server.port?)");
    refuse('[[models]]\nmodell_id = "x"\n', "models.modell_id", "(did you mean models.model_id?)");
    refuse("[completely_else]\na = 1\n", "key completely_else in x.toml");
    refuse("server = 1\n", "key server in x.toml is 1, not a table");
    refuse('models = "x"\n', "write [[models]]");
    refuse('command = "srve"\n', 'has the value "srve"; allowed: one of serve, run (did you mean serve?)');
  });
});

describe("several models", () => {
  const resolve = (text: string) => resolveSettings("serve", { file: parseConfigFile(text, "x.toml") });

  test("need names of their own, which an alias can give", () => {
    const twins = '[[models]]\nmodel_id = "a"\n[[models]]\nmodel_id = "a"\n';
    expectMistralError(() => resolve(twins), "invalid_configuration", 'the name "a"', "models.alias");
    expect(resolve(`${twins}alias = "b"\n`).models).toHaveLength(2);
  });

  test("the default one must be there", () => {
    const text =
      'default_model_id = "smoll"\n[[models]]\nmodel_id = "small"\n[[models]]\nmodel_id = "large"\n';
    expectMistralError(
      () => resolve(text),
      "invalid_configuration",
      'key default_model_id in x.toml has the value "smoll"',
      "one of small, large (did you mean small?)",
    );
  });

  test("share a device", () => {
    const text = '[[models]]\nmodel_id = "a"\n[models.device]\ncpu = true\n[[models]]\nmodel_id = "b"\n';
    expectMistralError(() => resolve(text), "invalid_configuration", "models.device.cpu");
  });

  test("cannot all be the model of one flag", () => {
    const file = parseConfigFile('[[models]]\nmodel_id = "a"\n[[models]]\nmodel_id = "b"\n', "x.toml");
    const flags = new Map([["model", { name: "--model-id", text: "c" }]] as const);
    expectMistralError(
      () => resolveSettings("serve", { file, flags }),
      "invalid_configuration",
      "flag --model-id names one model, but x.toml has 2",
    );
    const one = parseConfigFile('[[models]]\nmodel_id = "a"\n', "x.toml");
    expect(resolveSettings("serve", { file: one, flags }).settings.model).toBe("c");
  });
});
