import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { MistralError } from "../../src/errors.ts";
import { chatTemplateFrom, parseTemplateJson } from "../../src/text/chat-template.ts";
import { strftime } from "../../src/text/strftime.ts";
import type { ChatMessage, ChatTemplateInput } from "../../src/text/types.ts";
import { FIXTURES } from "./fixtures.ts";

const SPECIAL = { bosText: "<s>", eosText: "</s>", unkText: "<unk>" };
const now = () => new Date(2024, 1, 29, 9, 5, 3);

interface Rendered {
  readonly template: string;
  readonly text?: string;
  readonly error?: string;
}
interface ChatGolden extends Rendered {
  readonly kind: "chat";
  readonly case: string;
  readonly input: {
    readonly [variable: string]: unknown;
    readonly messages: readonly ChatMessage[];
    readonly tools?: readonly Record<string, unknown>[];
    readonly add_generation_prompt: boolean;
  };
}
type Golden =
  | ChatGolden
  | { readonly kind: "values"; readonly values: Record<string, unknown> }
  | ({ readonly kind: "expression" } & Rendered)
  | {
      readonly kind: "strftime";
      readonly date: [number, number, number, number, number, number];
      readonly texts: Record<string, string>;
    };

const goldens = readFileSync(join(FIXTURES, "template-goldens.jsonl"), "utf8")
  .trimEnd()
  .split("\n")
  .map((line) => parseTemplateJson(line) as Golden);

function inputOf({
  messages,
  tools,
  add_generation_prompt,
  ...variables
}: ChatGolden["input"]): ChatTemplateInput {
  return { messages, tools: tools ?? null, addGenerationPrompt: add_generation_prompt, variables };
}

/** The rendered text, or the error's code and message. */
function outcome(source: string, input: ChatTemplateInput): string {
  try {
    return chatTemplateFrom(source, SPECIAL, now).render(input);
  } catch (error) {
    if (error instanceof MistralError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

describe("templates of model families, byte for byte as transformers renders them", () => {
  const byTemplate = Map.groupBy(
    goldens.filter((golden) => golden.kind === "chat"),
    ({ template }) => template,
  );
  for (const [template, cases] of byTemplate) {
    test(template, () => {
      const source = readFileSync(join(FIXTURES, "templates", template), "utf8");
      for (const { text, input, ...golden } of cases) {
        const ours = outcome(source, inputOf(input));
        if (text !== undefined) expect([golden.case, ours]).toEqual([golden.case, text]);
        else expect(ours, golden.case).toStartWith("invalid_request: ");
      }
    });
  }

  test("a template's own refusal reaches the caller in its words", () => {
    const refusals = goldens.filter(
      (golden) => golden.kind === "chat" && /must alternate|roles/.test(golden.error ?? ""),
    );
    expect(refusals.length).toBeGreaterThan(2);
    for (const golden of refusals as ChatGolden[]) {
      const source = readFileSync(join(FIXTURES, "templates", golden.template), "utf8");
      expect(outcome(source, inputOf(golden.input))).toBe(`invalid_request: ${golden.error}`);
    }
  });
});

describe("the language, as Jinja and Python have it", () => {
  const values = goldens.find((golden) => golden.kind === "values")!.values;
  for (const golden of goldens) {
    if (golden.kind !== "expression") continue;
    test(golden.template.slice(0, 90), () => {
      const ours = outcome(golden.template, { messages: [], addGenerationPrompt: false, variables: values });
      if (golden.text !== undefined) expect(ours).toBe(golden.text);
      else expect(ours).toStartWith("invalid_request: ");
    });
  }
});

test("strftime, as Python has it", () => {
  let compared = 0;
  for (const golden of goldens) {
    if (golden.kind !== "strftime") continue;
    for (const [format, text] of Object.entries(golden.texts)) {
      expect([format, strftime(new Date(...golden.date), format)]).toEqual([format, text]);
      compared++;
    }
  }
  expect(compared).toBeGreaterThan(200);
});

describe("what a template is given", () => {
  const render = (source: string, input: Partial<ChatTemplateInput> = {}, special = SPECIAL) =>
    chatTemplateFrom(source, special, now).render({ messages: [], addGenerationPrompt: false, ...input });

  test("special tokens, undefined where the model has none", () => {
    expect(render("{{ bos_token }}{{ eos_token }}{{ unk_token }}")).toBe("<s></s><unk>");
    expect(render("{{ bos_token is defined }}", {}, { bosText: "", eosText: "", unkText: "" })).toBe("False");
  });

  test("tools and documents are none when there are none", () => {
    expect(render("{{ tools is none }} {{ documents is none }}")).toBe("True True");
    expect(render("{{ tools | tojson }}", { tools: [{ b: 1, a: 2 }] })).toBe('[{"b": 1, "a": 2}]');
  });

  test("the clock", () => {
    expect(render("{{ strftime_now('%d %b %Y') }}")).toBe("29 Feb 2024");
  });

  test("variables, which cannot replace the messages", () => {
    const variables = { enable_thinking: false, messages: "mine", range: 5 };
    expect(render("{{ enable_thinking }} {{ messages }}", { variables })).toBe("False []");
  });

  test("one render leaves nothing for the next", () => {
    const template = chatTemplateFrom("{{ x is defined }}{% set x = 1 %}", SPECIAL);
    const input = { messages: [], addGenerationPrompt: false };
    expect([template.render(input), template.render(input)]).toEqual(["False", "False"]);
  });

  test("floats keep their form through parseTemplateJson", () => {
    const variables = parseTemplateJson('{"a": 1.0, "b": 1, "c": [1e3, -2.50], "d": {"e": 0}}') as Record<
      string,
      unknown
    >;
    expect(render("{{ a }} {{ b }} {{ c | tojson }} {{ d }}", { variables })).toBe(
      "1.0 1 [1000.0, -2.5] {'e': 0}",
    );
  });

  test("a template that is not Jinja is refused when it is compiled", () => {
    expect(() => chatTemplateFrom("{% if %}", SPECIAL)).toThrow(
      expect.objectContaining({ code: "invalid_model_file" }),
    );
  });
});
