import { describe, expect, test } from "bun:test";
import fc from "fast-check";
import { type TextStep, TextStream } from "../../src/text/text-stream.ts";
import { tokenizerFromGguf } from "../../src/text/tokenizer.ts";
import type { Tokenizer } from "../../src/text/types.ts";
import { byteLevelMetadata, sentencePieceMetadata } from "./fixtures.ts";

const TOKENIZERS: readonly (readonly [string, Tokenizer])[] = [
  ["byte-level", tokenizerFromGguf(byteLevelMetadata("smollm", "smollm"))],
  ["SentencePiece with a space prefix", tokenizerFromGguf(sentencePieceMetadata("llama2"))],
];

interface Streamed {
  readonly text: string;
  readonly steps: readonly TextStep[];
  readonly stopped: boolean;
}

function stream(
  tokenizer: Tokenizer,
  tokens: readonly number[],
  stop: readonly string[],
  skipSpecialTokens = true,
): Streamed {
  const text = new TextStream(tokenizer, { stop, skipSpecialTokens });
  const steps = tokens.map((token) => text.push(token));
  steps.push(text.finish());
  return { text: steps.map((step) => step.text).join(""), steps, stopped: steps.at(-1)!.stopped };
}

/** The text before the stop string that is complete first, of those the one that begins first. */
function cut(text: string, stop: readonly string[]): string {
  for (let end = 1; end <= text.length; end++) {
    const complete = stop.filter((word) => text.slice(0, end).endsWith(word));
    if (complete.length > 0) return text.slice(0, end - Math.max(...complete.map((word) => word.length)));
  }
  return text;
}

/** Any tokens, whole words and single bytes alike, special ones among them. */
const tokensOf = (tokenizer: Tokenizer) => fc.array(fc.nat(tokenizer.vocabularySize - 1), { maxLength: 40 });
/** The bytes of a text as one token each, which splits every character over tokens. */
const WORDS = [
  "é",
  "你好",
  "😀",
  "a",
  " ",
  "END",
  "EN",
  "D",
  "\n\n",
  "ab",
  "aba",
  "\ufeff",
  "\ufffd",
  "x😀y",
];
const textOf = fc.array(fc.constantFrom(...WORDS), { maxLength: 20 }).map((words) => words.join(""));
const stopOf = fc.array(
  fc.constantFrom("END", "ENDE", "ND", "😀", "\n\n", "aba", "abab", "好", "a a", "\ufffd"),
  {
    maxLength: 3,
  },
);

describe.each([...TOKENIZERS])("%s", (_, tokenizer) => {
  /** The single-byte tokens, by byte. */
  const byteTokens = new Map<number, number>();
  for (let token = tokenizer.vocabularySize - 1; token >= 0; token--) {
    const bytes = tokenizer.tokenBytes(token);
    if (bytes.length === 1) byteTokens.set(bytes[0]!, token);
  }
  const asBytes = (text: string) =>
    Array.from(new TextEncoder().encode(text), (byte) => byteTokens.get(byte)!);

  test("what comes out is the decoded text, cut at the first stop string", () => {
    fc.assert(
      fc.property(tokensOf(tokenizer), stopOf, fc.boolean(), (tokens, stop, skipSpecialTokens) => {
        const whole = tokenizer.decode(tokens, { skipSpecialTokens });
        expect(stream(tokenizer, tokens, stop, skipSpecialTokens).text).toBe(cut(whole, stop));
      }),
      { numRuns: 400, seed: 11 },
    );
  });

  test("characters and stop strings split over tokens", () => {
    fc.assert(
      fc.property(textOf, stopOf, (text, stop) => {
        const tokens = asBytes(text);
        const whole = tokenizer.decode(tokens, { skipSpecialTokens: true });
        const { text: streamed, steps, stopped } = stream(tokenizer, tokens, stop);
        expect(streamed).toBe(cut(whole, stop));
        expect(stopped).toBe(streamed.length < whole.length || stop.some((word) => whole.endsWith(word)));
        for (const step of steps) expect(step.text.isWellFormed()).toBe(true);
      }),
      { numRuns: 400, seed: 12 },
    );
  });

  test("invalid bytes become U+FFFD as they do in the whole text", () => {
    const bytes = fc.array(
      fc.constantFrom(
        0x20,
        0x41,
        0x80,
        0xbf,
        0xc0,
        0xc3,
        0xe0,
        0xe2,
        0x82,
        0xed,
        0xa0,
        0xf0,
        0x9f,
        0xf4,
        0x90,
        0xff,
      ),
      { maxLength: 24 },
    );
    fc.assert(
      fc.property(bytes, (values) => {
        const tokens = values.map((byte) => byteTokens.get(byte)!);
        const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(values));
        const streamed = stream(tokenizer, tokens, []).text;
        expect(streamed).toBe(tokenizer.decode(tokens, { skipSpecialTokens: true }));
        expect(whole.endsWith(streamed) && whole.length - streamed.length <= 1).toBe(true);
      }),
      { numRuns: 400, seed: 13 },
    );
  });

  test("tokens are released with their text, in order, and all of them when nothing stops", () => {
    fc.assert(
      fc.property(textOf, stopOf, (text, stop) => {
        const tokens = asBytes(text);
        const { steps, stopped, text: streamed } = stream(tokenizer, tokens, stop);
        let released = 0;
        let emitted = "";
        for (const [index, step] of steps.entries()) {
          released += step.released;
          emitted += step.text;
          expect(released).toBeLessThanOrEqual(Math.min(index + 1, tokens.length));
          // The text of the tokens released so far is out, and the text that is out is of tokens released or next.
          const ofReleased = tokenizer.decode(tokens.slice(0, released), { skipSpecialTokens: true });
          if (!step.stopped) expect(emitted.startsWith(ofReleased)).toBe(true);
        }
        if (!stopped) expect(released).toBe(tokens.length);
        else {
          const before = tokenizer.decode(tokens.slice(0, released), { skipSpecialTokens: true });
          expect(before).toBe(streamed);
        }
      }),
      { numRuns: 300, seed: 14 },
    );
  });
});

describe("by example", () => {
  const tokenizer = TOKENIZERS[0]![1];
  const llama = TOKENIZERS[1]![1];
  const tokensOfText = (text: string) => tokenizer.encode(text, { addSpecialTokens: false });

  test("half a character waits for its other half", () => {
    const [first, ...rest] = Array.from(new TextEncoder().encode("é"), (byte) => byteToken(byte));
    const text = new TextStream(tokenizer, { stop: [], skipSpecialTokens: true });
    expect(text.push(first!)).toEqual({ text: "", released: 0, stopped: false });
    expect(text.push(rest[0]!)).toEqual({ text: "é", released: 2, stopped: false });
    expect(text.push(first!)).toEqual({ text: "", released: 0, stopped: false });
    expect(text.finish()).toEqual({ text: "\ufffd", released: 1, stopped: false });
  });

  function byteToken(byte: number): number {
    for (let token = 0; ; token++) {
      const bytes = tokenizer.tokenBytes(token);
      if (bytes.length === 1 && bytes[0] === byte) return token;
    }
  }

  test("the beginning of a stop string is held back and comes out when it is none", () => {
    const text = new TextStream(tokenizer, { stop: ["###"], skipSpecialTokens: true });
    const push = (part: string) =>
      tokensOfText(part)
        .map((token) => text.push(token).text)
        .join("");
    expect(push("a#")).toBe("a");
    expect(push("#")).toBe("");
    expect(push("b")).toBe("##b");
    expect(push("c##")).toBe("c");
    expect(push("#d")).toBe("");
    expect(text.finish()).toEqual({ text: "", released: 0, stopped: true });
  });

  test("the first leading space of a SentencePiece text goes, others stay", () => {
    const tokens = llama.encode("the the", { addSpecialTokens: false });
    expect(stream(llama, tokens, []).text).toBe("the the");
    expect(stream(llama, [llama.tokenId("▁")!, llama.tokenId("▁the")!], []).text).toBe(" the");
    expect(stream(llama, [llama.tokenId("<s>")!, ...tokens], []).text).toBe("the the");
  });

  test("the space at the beginning of a text that continues another stays", () => {
    const tokens = llama.encode("the the", { addSpecialTokens: false });
    const text = new TextStream(llama, { stop: [], skipSpecialTokens: true, continues: true });
    expect(text.length).toBe(0);
    expect(text.push(tokens[0]!).text).toBe(" the");
    expect(text.length).toBe(4);
    expect(text.push(tokens[1]!).text).toBe(" the");
  });

  test("tells the stop string that ended it, the longest of several", () => {
    const text = new TextStream(tokenizer, { stop: ["nd", "end", "x"], skipSpecialTokens: true });
    expect(text.stopString).toBeUndefined();
    for (const token of tokensOfText("the end x")) text.push(token);
    expect(text.stopString).toBe("end");
  });

  test("special tokens have text only when they are not skipped, or kept for a later reader", () => {
    const end = tokenizer.tokenId("<|im_end|>")!;
    const kept = new TextStream(tokenizer, { stop: [], skipSpecialTokens: true, keptTokens: new Set([end]) });
    expect(kept.push(end).text).toBe("<|im_end|>");
    expect(kept.push(tokenizer.tokenId("<|im_start|>")!).text).toBe("");
    expect(stream(tokenizer, [end], []).text).toBe("");
    expect(stream(tokenizer, [end], [], false).text).toBe("<|im_end|>");
    expect(stream(tokenizer, [...tokensOfText("a"), end], ["<|im_end|>"], false)).toMatchObject({
      text: "a",
      stopped: true,
    });
  });

  test("an empty stop string is refused", () => {
    expect(() => new TextStream(tokenizer, { stop: [""], skipSpecialTokens: true })).toThrow(
      "stop string is empty",
    );
  });

  test("a token costs the same however long the text before it is", () => {
    const text = new TextStream(tokenizer, { stop: ["<never>"], skipSpecialTokens: true });
    const tokens = tokensOfText("some words < of text ".repeat(20));
    const run = (count: number) => {
      const start = performance.now();
      for (let i = 0; i < count; i++) text.push(tokens[i % tokens.length]!);
      return performance.now() - start;
    };
    run(20_000);
    const early = run(20_000);
    run(160_000);
    expect(run(20_000)).toBeLessThan(10 * early + 50);
  });
});
