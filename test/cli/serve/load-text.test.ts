import { beforeAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { loadText } from "../../../src/cli/serve/load-text.ts";
import { openCheckpoint } from "../../../src/weights/checkpoint.ts";
import { resolveModel } from "../../../src/weights/resolve.ts";

const MESSAGES = { messages: [{ role: "user", content: "Hi" }], addGenerationPrompt: true };

let path = "";
beforeAll(async () => {
  const request = { model: undefined, file: undefined, onProgress: () => {}, environment: process.env };
  path = (await resolveModel(request)).checkpointPath;
}, 120_000);

describe("the text side of the default model", () => {
  test("has tokenizer, template and both ways to end", () => {
    const text = loadText(openCheckpoint(path), { chatTemplate: undefined, jinjaExplicit: undefined });
    expect(text.tokenizer.vocabularySize).toBe(49_152);
    expect(text.chatTemplate?.render(MESSAGES)).toContain("<|im_start|>user\nHi<|im_end|>");
    expect(text.chatTemplateFrom).not.toBe("none");
    const ends = text.eosTokens.map((token) => text.tokenizer.decode([token], { skipSpecialTokens: false }));
    expect(ends.sort()).toEqual(["<|endoftext|>", "<|im_end|>"]);
  });

  test("takes another template, --jinja-explicit before --chat-template", () => {
    const folder = mkdtempSync(join(tmpdir(), "mistral-template-"));
    try {
      const chatTemplate = join(folder, "a.json");
      const jinjaExplicit = join(folder, "b.jinja");
      writeFileSync(chatTemplate, JSON.stringify({ chat_template: "A {{ messages[0].content }}" }));
      writeFileSync(jinjaExplicit, "B {{ messages[0].content }}");
      const one = loadText(openCheckpoint(path), { chatTemplate, jinjaExplicit: undefined });
      expect(one.chatTemplate?.render(MESSAGES)).toBe("A Hi");
      const both = loadText(openCheckpoint(path), { chatTemplate, jinjaExplicit });
      expect(both.chatTemplate?.render(MESSAGES)).toBe("B Hi");
      expect(both.chatTemplateFrom).toBe(jinjaExplicit);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  test("a template that is not there is a configuration error that names it", () => {
    const files = { chatTemplate: undefined, jinjaExplicit: "/nowhere/x.jinja" };
    expect(() => loadText(openCheckpoint(path), files)).toThrow("/nowhere/x.jinja: does not exist");
  });
});
