import { describe, expect, test } from "bun:test";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import {
  markerTokens,
  type ReasoningFormat,
  reasoningFormatOf,
  reasoningSplitter,
  type TextPiece,
} from "../../src/text/reasoning.ts";
import { tokenizerFromGguf } from "../../src/text/tokenizer.ts";
import type { Tokenizer } from "../../src/text/types.ts";
import { byteLevelMetadata, FIXTURES } from "./fixtures.ts";

const plain: Tokenizer = tokenizerFromGguf(byteLevelMetadata("smollm", "smollm"));
/** The same tokenizer, with every marker a special token. */
const special: Tokenizer = Object.assign(Object.create(plain) as Tokenizer, {
  tokenId: () => 0,
  isSpecial: () => true,
});

const THINK: ReasoningFormat = { kind: "tags", open: "<think>", close: "</think>", label: "" };
const GEMMA: ReasoningFormat = { kind: "tags", open: "<|channel>", close: "<channel|>", label: "thought" };
const HARMONY: ReasoningFormat = { kind: "harmony" };

interface Split {
  readonly reasoning: string;
  readonly content: string;
  readonly pieces: readonly TextPiece[];
}

function split(
  format: ReasoningFormat,
  chunks: readonly string[],
  options: { readonly prompt?: string; readonly tokenizer?: Tokenizer } = {},
): Split {
  const splitter = reasoningSplitter(format, options.prompt ?? "", options.tokenizer ?? plain);
  const pieces = [...chunks.flatMap((chunk) => splitter.read(chunk)), ...splitter.finish()];
  const part = (name: TextPiece["part"]) =>
    pieces.flatMap((piece) => (piece.part === name ? [piece.text] : [])).join("");
  return { reasoning: part("reasoning"), content: part("content"), pieces };
}

const parts = (...given: Parameters<typeof split>) => {
  const { reasoning, content } = split(...given);
  return [reasoning, content];
};

describe("a thought between tags", () => {
  test.each([
    ["<think>\nhm\n</think>\n\nyes", "hm", "yes"],
    ["<think>hm</think>yes", "hm", "yes"],
    ["\n <think>hm</think>yes ", "hm", "yes "],
    ["<think></think>yes", "", "yes"],
    ["<think>\n\n</think>\n\nyes", "", "yes"],
    ["<think>a  b\n\nc</think>yes", "a  b\n\nc", "yes"],
    ["<think>a</think>\n<think>b</think> c", "ab", "c"],
    ["<think>never closed", "never closed", ""],
    ["<think>never closed </thi", "never closed </thi", ""],
    ["<think>1 < 2 </ think></think>so", "1 < 2 </ think>", "so"],
    ["<<think>hm", "", "<<think>hm"],
    ["no thought", "", "no thought"],
    ["  \n", "", "  \n"],
    ["<thin", "", "<thin"],
    ["", "", ""],
    ["a </think> b", "", "a </think> b"],
  ])("%j", (text, reasoning, content) => {
    expect(parts(THINK, [text])).toEqual([reasoning, content]);
    expect(parts(THINK, [...text])).toEqual([reasoning, content]);
  });

  test("opens only where nothing was said yet when its marker may be text", () => {
    const answer = 'Models write <think> and </think>: {"arguments": "<think>x</think>"}';
    expect(parts(THINK, [...answer])).toEqual(["", answer]);
    expect(parts(THINK, [`<think>hm</think>${answer}`])).toEqual(["hm", answer]);
  });

  test("opens anywhere when its marker is a special token", () => {
    const text = "a <|channel>thought\nhm\n<channel|>b<|channel>x<channel|>\n";
    expect(parts(GEMMA, [text], { tokenizer: special })).toEqual(["hmx", "a b"]);
    expect(parts(GEMMA, [...text], { tokenizer: special })).toEqual(["hmx", "a b"]);
  });

  test("loses its label only as its first line", () => {
    const thought = (text: string) => split(GEMMA, [`<|channel>${text}<channel|>x`]).reasoning;
    expect(thought("thought\nhm")).toBe("hm");
    expect(thought("thoughtful")).toBe("thoughtful");
    expect(thought("a\nthought\nb")).toBe("a\nthought\nb");
    expect(thought("")).toBe("");
  });

  test.each([
    ["<|im_start|>assistant\n<think>\n", "hm\n</think>\n\nyes", "hm", "yes"],
    ["<|Assistant|><think>", "hm", "hm", ""],
    ["<think>\n\n</think>\n\n", "\n\nyes", "", "yes"],
    ["<|Assistant|></think>", " yes", "", "yes"],
    ["user: what is <think>?\nassistant:", " a tag", "", " a tag"],
    ["assistant\n", "<think>hm</think>yes", "hm", "yes"],
    ["<think>\n\n</think>\n\n", "<think>hm</think>yes", "hm", "yes"],
  ])("after the prompt %j: %j", (prompt, text, reasoning, content) => {
    expect(parts(THINK, [text], { prompt })).toEqual([reasoning, content]);
    expect(parts(THINK, [...text], { prompt })).toEqual([reasoning, content]);
  });

  test("is held back no longer than it may be a marker", () => {
    const splitter = reasoningSplitter(THINK, "<think>", plain);
    const out = (text: string) => splitter.read(text).map(({ part, text: out }) => `${part}: ${out}`);
    expect(out("a<")).toEqual(["reasoning: a"]);
    expect(out("/thin")).toEqual([]);
    expect(out("g ")).toEqual(["reasoning: </thing"]);
    expect(out("x")).toEqual(["reasoning:  x"]);
    expect(splitter.inReasoning).toBe(true);
    expect(out("</think>")).toEqual([]);
    expect(splitter.inReasoning).toBe(false);
    expect(out("y</think")).toEqual(["content: y</think"]);
  });
});

describe("Harmony", () => {
  const prompt = "<|start|>user<|message|>Hi<|end|><|start|>assistant";
  const analysis = "<|channel|>analysis<|message|>hm";
  const final = "<|start|>assistant<|channel|>final<|message|>yes";

  test.each([
    [`${analysis}<|end|>${final}<|return|>`, "hm", "yes"],
    [`${analysis}<|end|>${final}`, "hm", "yes"],
    [`${analysis}${final}`, "hm", "yes"],
    ["<|channel|>final<|message|>yes", "", "yes"],
    ["<|message|>yes", "", "yes"],
    [
      `${analysis}<|end|><|start|>assistant<|channel|>commentary<|message|>so<|end|>${final}`,
      "hm\nso",
      "yes",
    ],
    [" to=functions.f<|channel|>commentary <|constrain|>json<|message|>{}<|call|>", "{}", ""],
    [`${analysis}<|end|><|start|>assistant<|channel|>fin`, "hm", ""],
    [`${analysis} <|en`, "hm <|en", ""],
    ["plain words", "", "plain words"],
    ["w".repeat(2_000), "", "w".repeat(2_000)],
  ])("%j", (text, reasoning, content) => {
    expect(parts(HARMONY, [text], { prompt })).toEqual([reasoning, content]);
    expect(parts(HARMONY, [...text], { prompt })).toEqual([reasoning, content]);
  });

  test("goes on where the prompt left off", () => {
    expect(
      parts(HARMONY, [...`hm<|end|>${final}`], { prompt: `${prompt}<|channel|>analysis<|message|>` }),
    ).toEqual(["hm", "yes"]);
    expect(parts(HARMONY, ["yes"], { prompt: `${prompt}<|channel|>final<|message|>Oh ` })).toEqual([
      "",
      "yes",
    ]);
    expect(parts(HARMONY, [...`al<|message|>yes`], { prompt: `${prompt}<|channel|>fin` })).toEqual([
      "",
      "yes",
    ]);
  });
});

/** Texts made of markers, halves of markers, white space and words. */
const WORDS: Readonly<Record<string, readonly string[]>> = {
  tags: [
    "<think>",
    "</think>",
    "<thi",
    "nk>",
    "</",
    "<",
    ">",
    "a",
    "\u00e9",
    "\u{1f600}",
    " ",
    "\n\n",
    "<<think>",
  ],
  gemma: [
    "<|channel>",
    "<channel|>",
    "thought",
    "\n",
    "<|chan",
    "nel>",
    "<",
    "|>",
    "a",
    " ",
    "thou",
    "\u4f60",
  ],
  harmony: [
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|end|>",
    "<|call|>",
    "final",
    "analysis",
    "assistant",
    "<|",
    "|>",
    "a",
    "\n",
    "w".repeat(300),
  ],
};

describe("however the text is cut into chunks", () => {
  const cases = [
    ["tags", THINK, ["", "<think>\n", "<think>\n</think>"]],
    ["gemma", GEMMA, ["", "<|channel>thought\n", "<|channel>"]],
    ["harmony", HARMONY, ["", "<|start|>assistant", "<|start|>assistant<|channel|>analysis<|message|>"]],
  ] as const;
  for (const [name, format, prompts] of cases) {
    for (const tokenizer of [plain, special]) {
      test(`${name}, markers ${tokenizer === plain ? "as text" : "as special tokens"}`, () => {
        const property = fc.property(
          fc.array(fc.constantFrom(...WORDS[name]!), { maxLength: 16 }),
          fc.array(fc.nat(8), { maxLength: 40 }),
          fc.constantFrom(...prompts),
          (words, sizes, prompt) => {
            const text = words.join("");
            const whole = split(format, [text], { prompt, tokenizer });
            const chunks = chunksOf(text, sizes);
            const given = split(format, chunks, { prompt, tokenizer });
            expect([given.reasoning, given.content]).toEqual([whole.reasoning, whole.content]);
            const single = split(format, [...text], { prompt, tokenizer });
            expect([single.reasoning, single.content]).toEqual([whole.reasoning, whole.content]);
            for (const { pieces } of [whole, given, single]) expectInPlace(text, pieces);
          },
        );
        fc.assert(property, { numRuns: 500, seed: 31 });
      });
    }
  }

  /** Each piece is where it says, behind the one before it. */
  function expectInPlace(text: string, pieces: readonly TextPiece[]): void {
    let end = 0;
    for (const piece of pieces) {
      expect(piece.start).toBeGreaterThanOrEqual(end);
      end = piece.end;
      const there = text.slice(piece.start, piece.end);
      expect([there, `\n${there}`]).toContain(piece.text);
    }
    expect(end).toBeLessThanOrEqual(text.length);
  }

  function chunksOf(text: string, sizes: readonly number[]): string[] {
    const chunks: string[] = [];
    let at = 0;
    for (const size of sizes) {
      chunks.push(text.slice(at, at + size));
      at += size;
    }
    return [...chunks, text.slice(at)];
  }
});

test("what goes out early never has to be taken back", () => {
  const property = fc.property(
    fc.array(fc.constantFrom(...WORDS.tags!), { maxLength: 16 }),
    fc.nat(60),
    (words, cut) => {
      const text = words.join("");
      const splitter = reasoningSplitter(THINK, "", plain);
      const early = splitter.read(text.slice(0, cut));
      const whole = split(THINK, [text]);
      const said = (part: string) =>
        early.flatMap((piece) => (piece.part === part ? [piece.text] : [])).join("");
      expect(whole.reasoning.startsWith(said("reasoning"))).toBe(true);
      expect(whole.content.startsWith(said("content"))).toBe(true);
    },
  );
  fc.assert(property, { numRuns: 500, seed: 32 });
});

test("a character costs the same however long the thought is", () => {
  const splitter = reasoningSplitter(THINK, "<think>", plain);
  const run = (count: number) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) splitter.read(i % 3 === 0 ? "\n</thi" : " word");
    return performance.now() - start;
  };
  run(20_000);
  const early = run(20_000);
  run(160_000);
  expect(run(20_000)).toBeLessThan(10 * early + 50);
});

describe("the template tells", () => {
  const tags = (open: string, close: string, label = "") => ({ kind: "tags" as const, open, close, label });
  test.each([
    ["{{ '<think>' }}{{ '</think>' }}", THINK],
    ["{% set content = content.split('</think>')[-1] %}", THINK],
    ["<|start|>assistant<|channel|>analysis<|message|>", HARMONY],
    ["<|start|>user<|message|>x<|end|>", HARMONY],
    ["<|channel>thought\n<channel|>", GEMMA],
    ["<start_of_turn>model\n", tags("<unused94>", "<unused95>", "thought")],
    ["<seed:think></seed:think>", tags("<seed:think>", "</seed:think>")],
    ["[THINK]{{ x }}[/THINK]", tags("[THINK]", "[/THINK]")],
    ["<|START_THINKING|><|END_THINKING|>", tags("<|START_THINKING|>", "<|END_THINKING|>")],
    ["<|im_start|>", undefined],
    ["<|user|>x<|end|>", undefined],
    ["", undefined],
  ] as const)("%j", (source, format) => {
    expect(reasoningFormatOf(source)).toEqual(format);
  });

  test("also in real templates", () => {
    const source = (name: string) => readFileSync(join(FIXTURES, `templates/${name}.jinja`), "utf8");
    expect(reasoningFormatOf(source("qwen3"))).toEqual(THINK);
    for (const name of ["smollm2", "llama3.2", "qwen2.5", "mistral-nemo"]) {
      expect(reasoningFormatOf(source(name))).toBeUndefined();
    }
  });
});

test("marker tokens are those the vocabulary has", () => {
  expect(markerTokens(THINK, plain)).toEqual(new Set());
  const known = Object.assign(Object.create(plain) as Tokenizer, {
    tokenId: (text: string) => (text === "<|start|>" ? 7 : text === "<|end|>" ? 9 : undefined),
  });
  expect(markerTokens(HARMONY, known)).toEqual(new Set([7, 9]));
});
