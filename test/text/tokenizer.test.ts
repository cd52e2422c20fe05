import { afterAll, describe, expect, test } from "bun:test";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Tokenizer as Official } from "tokenizers";
import { MistralError } from "../../src/errors.ts";
import { tokenizerFromFolder, tokenizerFromGguf } from "../../src/text/tokenizer.ts";
import type { Tokenizer } from "../../src/text/types.ts";
import { hardCorpus } from "./corpus.ts";
import { byteLevelMetadata, changed, definitionOf, sentencePieceMetadata, TOKENIZERS } from "./fixtures.ts";

const folder = mkdtempSync(join(tmpdir(), "tokenizer-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** A tokenizer from files with these contents. */
function fromFiles(definition: unknown, config?: unknown, specialTokensMap?: unknown): Tokenizer {
  const files = { tokenizer: definition, tokenizer_config: config, special_tokens_map: specialTokensMap };
  for (const [name, content] of Object.entries(files)) {
    const path = join(folder, `${name}.json`);
    rmSync(path, { force: true });
    if (content !== undefined) writeFileSync(path, JSON.stringify(content));
  }
  return tokenizerFromFolder(folder);
}

function codeOf(run: () => unknown): string {
  try {
    run();
  } catch (error) {
    if (error instanceof MistralError) return `${error.code}: ${error.message}`;
    throw error;
  }
  return "no error";
}

function specialTexts(name: string): string[] {
  return definitionOf(name).added_tokens.flatMap(({ special, content }) => (special ? [content] : []));
}

/** Every text on which encoding or decoding is not the official library's. */
async function differences(
  ours: Tokenizer,
  name: string,
  definition: unknown = definitionOf(name),
): Promise<string[]> {
  const official = Official.fromString(JSON.stringify(definition));
  const wrong: string[] = [];
  const compare = async (text: string, addSpecialTokens: boolean): Promise<void> => {
    const shown = `${JSON.stringify(text.slice(0, 60))} ${addSpecialTokens}`;
    const expected = (await official.encode(text, null, { addSpecialTokens })).getIds();
    // The official library doubles a BOS that is written in the text.
    const { bosToken } = ours;
    const doubled =
      addSpecialTokens && expected.length > 1 && expected[0] === bosToken && expected[1] === bosToken;
    const tokens = ours.encode(text, { addSpecialTokens });
    if (tokens.join() !== (doubled ? expected.slice(1) : expected).join()) wrong.push(`encode ${shown}`);
    const decoded = ours.decode(expected, { skipSpecialTokens: addSpecialTokens });
    if (decoded !== (await official.decode(expected, addSpecialTokens))) wrong.push(`decode ${shown}`);
  };
  const texts = hardCorpus(specialTexts(name));
  for (const [index, text] of texts.entries()) {
    await compare(text, false);
    if (index < texts.length - 1) await compare(text, true);
  }
  return wrong;
}

describe("tokenizer.json, against the official library", () => {
  for (const name of TOKENIZERS.keys()) {
    test(name, async () => {
      const bos = { llama3: "<|begin_of_text|>", tekken: "<s>", llama2: "<s>", gemma3: "<bos>" }[name];
      expect(await differences(fromFiles(definitionOf(name), { bos_token: bos }), name)).toEqual([]);
    });
  }

  test("an added token that is looked for in normalized text", async () => {
    const { added_tokens, model } = definitionOf("llama2");
    const id = Object.keys(model.vocab).length;
    const folded = {
      id,
      content: "folded",
      normalized: true,
      special: false,
      single_word: false,
      lstrip: false,
      rstrip: false,
    };
    const definition = changed("llama2", { added_tokens: [...added_tokens, folded] });
    expect(await differences(fromFiles(definition, { bos_token: "<s>" }), "llama2", definition)).toEqual([]);
  });

  test("merges written as lines, the older form", async () => {
    const { model } = definitionOf("llama3");
    const merges = model.merges.map(([left, right]) => `${left} ${right}`);
    const ours = fromFiles(changed("llama3", { model: { ...model, merges } }), {
      bos_token: "<|begin_of_text|>",
    });
    expect(await differences(ours, "llama3")).toEqual([]);
  });
});

describe("GGUF metadata, against the official library on the tokenizer.json it stands for", () => {
  const byteLevel = [
    ["gpt2", "gpt-2", undefined],
    ["smollm", "smollm", undefined],
    ["smollm", "starcoder", undefined],
    ["llama3", "llama-bpe", "<|begin_of_text|>"],
    ["qwen2", "qwen2", undefined],
    ["tekken", "tekken", "<s>"],
    ["deepseek-v3", "deepseek-v3", undefined],
  ] as const;
  for (const [name, pre, bos] of byteLevel) {
    test(`${name} as ${pre}`, async () => {
      expect(await differences(tokenizerFromGguf(byteLevelMetadata(name, pre, bos)), name)).toEqual([]);
    });
  }

  test("llama2: SentencePiece with the defaults of a file that says nothing", async () => {
    expect(await differences(tokenizerFromGguf(sentencePieceMetadata("llama2")), "llama2")).toEqual([]);
  });

  test("gemma3: SentencePiece without space prefix, with user-defined runs of spaces", async () => {
    const metadata = sentencePieceMetadata("gemma3");
    metadata.set("tokenizer.ggml.add_space_prefix", false);
    metadata.set("tokenizer.ggml.bos_token_id", 2);
    metadata.set("tokenizer.ggml.eos_token_id", 1);
    metadata.set("tokenizer.ggml.unknown_token_id", 3);
    expect(await differences(tokenizerFromGguf(metadata), "gemma3")).toEqual([]);
  });

  test("a wrong pre-tokenizer is noticed by these comparisons", async () => {
    expect(await differences(tokenizerFromGguf(byteLevelMetadata("smollm", "gpt-2")), "smollm")).not.toEqual(
      [],
    );
  });
});

describe("special tokens", () => {
  const llama2 = () => sentencePieceMetadata("llama2");

  test("BOS and EOS are added as the file says, and by default as the model type has it", () => {
    const encode = (metadata: Map<string, unknown>) =>
      tokenizerFromGguf(metadata).encode("a", { addSpecialTokens: true });
    const plain = tokenizerFromGguf(llama2()).encode("a", { addSpecialTokens: false });
    expect(encode(llama2())).toEqual([1, ...plain]);
    expect(encode(llama2().set("tokenizer.ggml.add_bos_token", false))).toEqual(plain);
    expect(encode(llama2().set("tokenizer.ggml.add_eos_token", true))).toEqual([1, ...plain, 2]);
    const smollm = byteLevelMetadata("smollm", "smollm", "<|im_start|>");
    expect(encode(smollm)).toEqual([definitionOf("smollm").model.vocab.a!]);
    expect(encode(smollm.set("tokenizer.ggml.add_bos_token", true))).toHaveLength(2);
  });

  test("a BOS is never doubled", () => {
    const tokenizer = tokenizerFromGguf(llama2());
    const once = tokenizer.encode("hello", { addSpecialTokens: true });
    expect(once[0]).toBe(1);
    expect(tokenizer.encode("<s>hello", { addSpecialTokens: true })).toEqual(once);
    expect(tokenizer.encode("<s>", { addSpecialTokens: true })).toEqual([1]);
    expect(tokenizer.encode("", { addSpecialTokens: true })).toEqual([1]);
  });

  test("classes that build their post-processor from the configuration", () => {
    const bare = changed("llama2", { post_processor: null });
    const config = { tokenizer_class: "LlamaTokenizer", add_bos_token: true, bos_token: { content: "<s>" } };
    expect(fromFiles(bare, config).encode("a", { addSpecialTokens: true })[0]).toBe(1);
    const off = { ...config, add_bos_token: false };
    expect(fromFiles(definitionOf("llama2"), off).encode("a", { addSpecialTokens: true })[0]).not.toBe(1);
  });

  test("are named by tokenizer_config.json, else by special_tokens_map.json", () => {
    const map = { bos_token: "<s>", eos_token: { content: "</s>" }, unk_token: "<unk>" };
    const mapped = fromFiles(definitionOf("llama2"), undefined, map);
    expect([mapped.bosToken, mapped.eosToken, mapped.bosText, mapped.eosText, mapped.unkText]).toEqual([
      1,
      2,
      "<s>",
      "</s>",
      "<unk>",
    ]);
    const configured = fromFiles(definitionOf("llama2"), { eos_token: "<s>" }, map);
    expect(configured.eosToken).toBe(1);
  });

  test("are told from ordinary and user-defined tokens", () => {
    const tokenizer = tokenizerFromGguf(sentencePieceMetadata("gemma3"));
    const idOf = (text: string) => tokenizer.tokenId(text)!;
    expect(tokenizer.isSpecial(idOf("<bos>"))).toBe(true);
    expect(tokenizer.isSpecial(idOf("<start_of_turn>"))).toBe(false);
    expect(tokenizer.isSpecial(idOf("a"))).toBe(false);
    expect(tokenizer.tokenId("no such token")).toBeUndefined();
  });
});

describe("tokens and bytes", () => {
  const bytes = (text: string) => new TextEncoder().encode(text);

  test("byte-level: the bytes, not the letters that stand for them", () => {
    const tokenizer = fromFiles(definitionOf("gpt2"));
    expect(tokenizer.tokenBytes(tokenizer.tokenId("Ġthe")!)).toEqual(bytes(" the"));
    expect(tokenizer.tokenBytes(tokenizer.tokenId("Ã")!)).toEqual(Uint8Array.of(0xc3));
    expect(tokenizer.tokenBytes(tokenizer.tokenId("<|endoftext|>")!)).toEqual(bytes("<|endoftext|>"));
  });

  test("SentencePiece: markers are spaces, byte tokens are bytes", () => {
    const tokenizer = tokenizerFromGguf(sentencePieceMetadata("gemma3"));
    expect(tokenizer.tokenBytes(tokenizer.tokenId("▁the")!)).toEqual(bytes(" the"));
    expect(tokenizer.tokenBytes(tokenizer.tokenId("▁▁▁")!)).toEqual(bytes("   "));
    expect(tokenizer.tokenBytes(tokenizer.tokenId("<0xE2>")!)).toEqual(Uint8Array.of(0xe2));
  });

  test("the bytes of all tokens of a text are the text", () => {
    for (const name of ["gpt2", "llama3", "smollm", "gemma3"]) {
      const tokenizer = fromFiles(definitionOf(name));
      for (const text of hardCorpus([]).slice(0, 60)) {
        const tokens = tokenizer.encode(text, { addSpecialTokens: false });
        const joined = Buffer.concat(tokens.map((token) => tokenizer.tokenBytes(token)));
        // SentencePiece does not tell its marker from a space.
        expect(joined.toString("utf8")).toBe(name === "gemma3" ? text.replaceAll("▁", " ") : text);
      }
    }
  });

  test("no tokens are no text; padding of the vocabulary is no text; what is no id is refused", () => {
    const tokenizer = fromFiles(definitionOf("gpt2"));
    expect(tokenizer.decode([], { skipSpecialTokens: true })).toBe("");
    expect(tokenizer.decode([tokenizer.vocabularySize + 5], { skipSpecialTokens: true })).toBe("");
    expect(codeOf(() => tokenizer.decode([-1], { skipSpecialTokens: true }))).toStartWith("invalid_request");
    expect(codeOf(() => tokenizer.tokenBytes(1.5))).toStartWith("invalid_request");
  });

  test("U+FEFF and lone surrogates", () => {
    const tokenizer = fromFiles(definitionOf("gpt2"));
    const round = (text: string) =>
      tokenizer.decode(tokenizer.encode(text, { addSpecialTokens: false }), { skipSpecialTokens: true });
    expect(round("\ufeffa\ufeff")).toBe("\ufeffa\ufeff");
    expect(round("a\ud800b")).toBe("a\ufffdb");
  });
});

describe("size", () => {
  test("10 MB of text, with and without places to cut, does not overflow the stack", () => {
    const tokenizer = tokenizerFromGguf(sentencePieceMetadata("llama2"));
    const words = "hello world ".repeat(880_000);
    const tokens = tokenizer.encode(words, { addSpecialTokens: false });
    expect(tokenizer.decode(tokens, { skipSpecialTokens: true }).length).toBe(words.length);
    const unbroken = "x".repeat(2_000_000);
    expect(tokenizer.encode(unbroken, { addSpecialTokens: false }).length).toBeGreaterThan(100_000);
  }, 30_000);
});

describe("files that cannot be used are refused by name", () => {
  const smollm = (changes: Record<string, unknown>) => {
    const metadata = byteLevelMetadata("smollm", "smollm");
    for (const [key, value] of Object.entries(changes)) {
      if (value === undefined) metadata.delete(`tokenizer.ggml.${key}`);
      else metadata.set(`tokenizer.ggml.${key}`, value);
    }
    return codeOf(() => tokenizerFromGguf(metadata));
  };

  test("GGUF metadata", () => {
    expect(smollm({})).toBe("no error");
    expect(smollm({ pre: "made-up" })).toMatch(/^unsupported_model: .*"made-up"/);
    expect(smollm({ pre: "constructor" })).toStartWith("unsupported_model");
    expect(smollm({ pre: undefined })).toMatch(/^unsupported_model: .*tokenizer\.ggml\.pre/);
    expect(smollm({ model: "rwkv" })).toMatch(/^unsupported_model: .*"rwkv"/);
    expect(smollm({ model: undefined })).toStartWith("invalid_model_file");
    expect(smollm({ tokens: undefined })).toMatch(/^invalid_model_file: .*tokens/);
    expect(smollm({ tokens: ["a", 5] })).toMatch(/^invalid_model_file: .*element 1/);
    expect(smollm({ merges: 5 })).toMatch(/^invalid_model_file: .*merges/);
    expect(smollm({ token_type: [1, 2] })).toMatch(/^invalid_model_file: .*2 elements for \d+ tokens/);
    expect(smollm({ bos_token_id: 1_000_000 })).toMatch(/^invalid_model_file: .*1000000/);
    expect(smollm({ eos_token_id: -1 })).toStartWith("invalid_model_file");
    expect(smollm({ add_bos_token: "yes" })).toStartWith("invalid_model_file");
    const noScores = sentencePieceMetadata("llama2");
    noScores.delete("tokenizer.ggml.scores");
    expect(codeOf(() => tokenizerFromGguf(noScores))).toMatch(/^invalid_model_file: .*scores/);
  });

  test("tokenizer.json", () => {
    const refused = (changes: Record<string, unknown>) => codeOf(() => fromFiles(changed("llama2", changes)));
    const { model } = definitionOf("llama2");
    expect(refused({})).toBe("no error");
    expect(refused({ model: { type: "WordPiece", vocab: {} } })).toMatch(/^unsupported_model: .*WordPiece/);
    expect(refused({ model: undefined })).toStartWith("invalid_model_file");
    expect(refused({ model: { ...model, vocab: { a: -1 } } })).toMatch(/^invalid_model_file: .*-1/);
    expect(refused({ model: { ...model, end_of_word_suffix: "</w>" } })).toMatch(
      /^unsupported_model: .*suffix/,
    );
    expect(refused({ decoder: { type: "CTC" } })).toMatch(/^unsupported_model: .*CTC/);
    expect(refused({ pre_tokenizer: { type: "UnicodeScripts" } })).toMatch(
      /^unsupported_model: .*UnicodeScripts/,
    );
    expect(refused({ normalizer: { type: "Nonesuch" } })).toMatch(/^unsupported_model: .*Nonesuch/);
    expect(refused({ added_tokens: 5 })).toStartWith("invalid_model_file");
    writeFileSync(join(folder, "tokenizer.json"), '{"model": ');
    expect(codeOf(() => tokenizerFromFolder(folder))).toMatch(/^invalid_model_file: .*tokenizer\.json/);
    expect(codeOf(() => tokenizerFromFolder(join(folder, "none")))).toStartWith("model_not_found");
  });
});
