import { describe, expect, test } from "bun:test";
import { MistralError } from "../../src/errors.ts";
import { chatTemplateFrom } from "../../src/text/chat-template.ts";
import { RENDER_LIMITS } from "../../src/text/jinja/limits.ts";

const SPECIAL = { bosText: "", eosText: "", unkText: "" };
const SMALL = { timeMs: 60_000, charactersMax: 10_000, itemsMax: 1_000 };

/** The text, or the error's code and message. */
function outcome(template: string, limits = SMALL, variables: Record<string, unknown> = {}): string {
  try {
    const input = { messages: [], addGenerationPrompt: true, variables };
    return chatTemplateFrom(template, SPECIAL, undefined, limits).render(input);
  } catch (error) {
    if (error instanceof MistralError) return `${error.code}: ${error.message}`;
    throw error;
  }
}

test("a loop without end in sight ends with the time", () => {
  const nested = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
  const startedMs = performance.now();
  expect(outcome(nested, { ...RENDER_LIMITS, timeMs: 100 })).toBe(
    "invalid_request: the chat template ran for longer than 0.1 s with these messages",
  );
  expect(performance.now() - startedMs).toBeLessThan(5_000);
});

test("100 MB of output are refused by the limits in force, and a long body's text is not", () => {
  const refusal =
    "invalid_request: the chat template makes a text of more than 67108864 characters with these messages";
  const text = "x".repeat(1024 * 1024);
  expect(outcome("{% for i in range(100) %}{{ text }}{% endfor %}", RENDER_LIMITS, { text })).toBe(refusal);
  expect(outcome("{% for i in range(50) %}{{ text }}{% endfor %}", RENDER_LIMITS, { text })).toHaveLength(
    50 * 1024 * 1024,
  );
});

describe("whatever makes much out of little is refused before it is made", () => {
  const text = "ab".repeat(2_000);
  const texts = [
    "{{ 'x' * 1000000000000 }}",
    "{{ text * 3 }}",
    "{{ text + text + text }}",
    "{{ text ~ text ~ text }}",
    "{{ text | replace('a', text) }}",
    "{{ text.replace('', text) }}",
    "{{ [text, text] | join(text) }}",
    "{{ text.join([text, text]) }}",
    "{{ [1, 2, 3] | map('string') | join(text * 2) }}",
    "{{ text | indent(100000, true) }}",
    "{{ [1] | tojson(indent=1000000) }}",
    "{{ '7'.zfill(1000000000) }}",
    "{{ '%1000000000d' % 7 }}",
    "{% set ns = namespace(x='x') %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set x %}{{ text }}{{ text }}{{ text }}{% endset %}",
    "{% macro m() %}{{ text }}{{ text }}{{ text }}{% endmacro %}{% set x = m() %}",
  ];
  for (const template of texts) {
    test(template, () => {
      expect(outcome(template, SMALL, { text })).toBe(
        "invalid_request: the chat template makes a text of more than 10000 characters with these messages",
      );
    });
  }

  for (const template of [
    "{{ [0] * 1000000000000 }}",
    "{% set ns = namespace(x=[0]) %}{% for i in range(99) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
  ]) {
    test(template, () => {
      expect(outcome(template)).toBe(
        "invalid_request: the chat template makes a list of more than 1000 items with these messages",
      );
    });
  }

  test("what stays within the limits is made", () => {
    expect(outcome("{{ text * 2 }}", SMALL, { text })).toHaveLength(8_000);
    expect(outcome("{{ text | replace('a', 'cc') }}", SMALL, { text })).toHaveLength(6_000);
    expect(outcome("{{ [1, 2] | tojson(indent=2) }}")).toBe("[\n  1,\n  2\n]");
    expect(outcome("{{ [0] * 1000 }}")).toStartWith("[0, 0");
  });
});

test("a macro that calls itself for ever is refused", () => {
  expect(outcome("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}")).toStartWith("invalid_request: ");
});

test("white space inside a text does not make trimming it slow", () => {
  const text = `${" ".repeat(1_000_000)}a${" ".repeat(1_000_000)}b`;
  const startedMs = performance.now();
  expect(outcome("{{ text.rstrip() | trim | length }}", RENDER_LIMITS, { text })).toBe("1000002");
  expect(performance.now() - startedMs).toBeLessThan(2_000);
});
