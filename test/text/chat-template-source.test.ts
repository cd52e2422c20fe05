import { afterAll, expect, test } from "bun:test";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { MistralError } from "../../src/errors.ts";
import { findChatTemplate } from "../../src/text/chat-template-source.ts";

const root = mkdtempSync(join(tmpdir(), "templates-"));
afterAll(() => rmSync(root, { recursive: true }));

let folders = 0;
/** A model folder with these files; objects are written as JSON. */
function folderOf(files: Readonly<Record<string, unknown>>): string {
  const folder = join(root, String(folders++));
  mkdirSync(folder);
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === "string" ? content : JSON.stringify(content));
  }
  return folder;
}

const gguf = (entries: Record<string, unknown>) => new Map(Object.entries(entries));
const codeOf = (run: () => unknown): string => {
  try {
    run();
  } catch (error) {
    if (error instanceof MistralError) return error.code;
    throw error;
  }
  return "no error";
};

test("the strongest source wins, one after the other", () => {
  const files: Record<string, unknown> = {
    "given.jinja": "given",
    "processor_config.json": { chat_template: "processor config" },
    "chat_template.jinja": "jinja file",
    "tokenizer_config.json": { chat_template: "tokenizer config" },
    "chat_template.json": { chat_template: "json file" },
  };
  const ggufMetadata = gguf({ "tokenizer.chat_template": "gguf" });
  const found = () => findChatTemplate({ folder: folderOf(files), ggufMetadata })?.template;
  const given = join(folderOf(files), "given.jinja");
  const withFile = () => findChatTemplate({ file: given, folder: folderOf(files), ggufMetadata })?.template;
  expect(findChatTemplate({ explicitFile: given, folder: folderOf(files) })?.template).toBe("given");
  expect([withFile(), found()]).toEqual(["processor config", "processor config"]);
  files["processor_config.json"] = { image_size: 1 };
  expect(withFile()).toBe("given");
  expect(found()).toBe("jinja file");
  delete files["chat_template.jinja"];
  expect(found()).toBe("tokenizer config");
  files["tokenizer_config.json"] = {};
  expect(found()).toBe("json file");
  delete files["chat_template.json"];
  expect(found()).toBe("gguf");
  expect(findChatTemplate({ folder: folderOf({}), ggufMetadata: gguf({}) })).toBeUndefined();
  expect(findChatTemplate({})).toBeUndefined();
});

test("named templates: the default one, and the one for tools", () => {
  const named = (...names: string[]) =>
    findChatTemplate({
      folder: folderOf({
        "tokenizer_config.json": { chat_template: names.map((name) => ({ name, template: `T ${name}` })) },
      }),
    });
  expect(named("default", "tool_use")).toMatchObject({ template: "T default", toolUse: "T tool_use" });
  expect(named("default")).toMatchObject({ template: "T default", toolUse: undefined });
  expect(named("tool_use")).toMatchObject({ template: "T tool_use", toolUse: "T tool_use" });
  expect(named("other")).toBeUndefined();
  const inGguf = findChatTemplate({
    ggufMetadata: gguf({ "tokenizer.chat_template": "a", "tokenizer.chat_template.tool_use": "b" }),
  });
  expect(inGguf).toMatchObject({ template: "a", toolUse: "b" });
});

test("a file that was asked for must be usable", () => {
  const folder = folderOf({
    "t.json": { chat_template: "in json" },
    "empty.json": {},
    "t.txt": "x",
    "bad.json": "{",
  });
  const find = (name: string) => findChatTemplate({ file: join(folder, name) });
  expect(find("t.json")?.template).toBe("in json");
  for (const name of ["none.jinja", "empty.json", "t.txt"]) {
    expect([name, codeOf(() => find(name))]).toEqual([name, "invalid_configuration"]);
  }
  expect(codeOf(() => find("bad.json"))).toBe("invalid_model_file");
  expect(
    codeOf(() => findChatTemplate({ folder: folderOf({ "tokenizer_config.json": { chat_template: 5 } }) })),
  ).toBe("invalid_model_file");
});

test("a given JSON file may bring special tokens; the model's own files may not", () => {
  const content = { chat_template: "T", bos_token: "<b>", eos_token: { content: "<e>" }, unk_token: null };
  const given = join(folderOf({ "given.json": content }), "given.json");
  expect(findChatTemplate({ file: given })?.special).toEqual({ bosText: "<b>", eosText: "<e>" });
  expect(findChatTemplate({ folder: folderOf({ "chat_template.json": content }) })?.special).toBeUndefined();
  const wrong = join(folderOf({ "given.json": { ...content, bos_token: 1 } }), "given.json");
  expect(codeOf(() => findChatTemplate({ file: wrong }))).toBe("invalid_model_file");
});

test("an explicit template is a .jinja file", () => {
  const given = join(folderOf({ "given.json": { chat_template: "T" } }), "given.json");
  expect(codeOf(() => findChatTemplate({ explicitFile: given }))).toBe("invalid_configuration");
  expect(codeOf(() => findChatTemplate({ explicitFile: "/nowhere/x.jinja" }))).toBe("invalid_configuration");
});
