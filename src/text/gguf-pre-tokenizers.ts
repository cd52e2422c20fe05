/**
 * What the name in `tokenizer.ggml.pre` stands for: GGUF stores only a name where a tokenizer.json stores the
 * whole pre-tokenizer. The patterns are those of the models' own tokenizer.json files; the names and defaults
 * are llama.cpp's.
 */

import { MistralError } from "../errors.ts";
import { GPT2_PATTERN } from "./pre-tokenizer.ts";

export interface GgufPreTokenizer {
  /** Applied one after the other; each cuts the pieces of the one before. */
  readonly patterns: readonly string[];
  /** A word that is a token is that token, whether or not merges lead there. */
  readonly ignoreMerges?: boolean;
  /** Unicode normalization before anything else. */
  readonly normalization?: "NFC";
  /** BOS is added when the file does not say (`tokenizer.ggml.add_bos_token`). */
  readonly addBos?: boolean;
}

const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const SPACES = "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const UPPER = "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]";
const LOWER = "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]";
const PREFIX = "[^\\r\\n\\p{L}\\p{N}]?";

/** The cl100k pattern, which differs between families in how many digits stay together. */
const cl100k = (digits: string): string =>
  `${CONTRACTIONS}|${PREFIX}\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|${SPACES}`;

/** The o200k pattern: words are split where the case changes. */
const o200k = (suffix: string, digits: string): string =>
  `${PREFIX}${UPPER}*${LOWER}+${suffix}|${PREFIX}${UPPER}+${LOWER}*${suffix}|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|${SPACES}`;

/** Cased letters, as DeepSeek's first tokenizers list them. */
const DEEPSEEK_LATIN =
  "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af" +
  "\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5" +
  "\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-" +
  "\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d" +
  "\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-" +
  "\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113" +
  "\u2115\u2119-\u211d\u2124\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149" +
  "\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b" +
  "\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-" +
  "\uff5a\u{10400}-\u{1044f}\u{104b0}-\u{104d3}\u{104d8}-\u{104fb}\u{10c80}-\u{10cb2}\u{10cc0}-" +
  "\u{10cf2}\u{118a0}-\u{118df}\u{1e900}-\u{1e943}]+";
const DEEPSEEK_V3 =
  "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const LLAMA3: GgufPreTokenizer = { patterns: [cl100k("\\p{N}{1,3}")], ignoreMerges: true, addBos: true };
const CL100K: GgufPreTokenizer = { patterns: [cl100k("\\p{N}{1,3}")] };
const QWEN2: GgufPreTokenizer = { patterns: [cl100k("\\p{N}")], normalization: "NFC" };
const QWEN35: GgufPreTokenizer = {
  patterns: [
    `${CONTRACTIONS}|${PREFIX}[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|${SPACES}`,
  ],
  normalization: "NFC",
};
const DIGITS_FIRST: GgufPreTokenizer = { patterns: ["\\p{N}", GPT2_PATTERN] };
const GPT2: GgufPreTokenizer = { patterns: [GPT2_PATTERN] };
const GPT4O: GgufPreTokenizer = { patterns: [o200k(`${CONTRACTIONS}?`, "\\p{N}{1,3}")] };
const TEKKEN: GgufPreTokenizer = { patterns: [o200k("", "\\p{N}")], ignoreMerges: true, addBos: true };
const DEEPSEEK_LLM: GgufPreTokenizer = {
  patterns: [
    "[\\r\\n]",
    DEEPSEEK_LATIN,
    "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
    "\\s+$",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    "\\p{N}+",
  ],
};
const DEEPSEEK_CODER: GgufPreTokenizer = {
  patterns: [
    "[\\r\\n]",
    "\\s?\\p{L}+",
    "\\s?\\p{P}+",
    "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
    "\\p{N}",
  ],
};
const DEEPSEEK3: GgufPreTokenizer = {
  patterns: ["\\p{N}{1,3}", "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+", DEEPSEEK_V3],
};

const BY_NAME: Readonly<Record<string, GgufPreTokenizer>> = {
  llama3: LLAMA3,
  "llama-v3": LLAMA3,
  "llama-bpe": LLAMA3,
  falcon3: LLAMA3,
  "falcon-h1": LLAMA3,
  pixtral: LLAMA3,
  "midm-2.0": LLAMA3,
  lfm2: LLAMA3,
  dbrx: CL100K,
  "smaug-bpe": CL100K,
  glm4: CL100K,
  "chatglm-bpe": CL100K,
  qwen2: QWEN2,
  "deepseek-r1-qwen": QWEN2,
  megrez: QWEN2,
  hunyuan: { patterns: QWEN2.patterns },
  stablelm2: { patterns: QWEN2.patterns },
  qwen35: QWEN35,
  smollm: DIGITS_FIRST,
  starcoder: DIGITS_FIRST,
  refact: DIGITS_FIRST,
  "command-r": DIGITS_FIRST,
  codeshell: DIGITS_FIRST,
  exaone: DIGITS_FIRST,
  "minerva-7b": DIGITS_FIRST,
  "gpt-2": GPT2,
  "phi-2": GPT2,
  mpt: GPT2,
  olmo: GPT2,
  jais: GPT2,
  trillion: GPT2,
  exaone4: GPT2,
  gigachat: GPT2,
  "granite-docling": GPT2,
  "modern-bert": GPT2,
  "gpt-4o": GPT4O,
  llama4: GPT4O,
  kanana2: GPT4O,
  tekken: TEKKEN,
  "deepseek-llm": DEEPSEEK_LLM,
  "deepseek-coder": DEEPSEEK_CODER,
  "deepseek-v3": DEEPSEEK3,
  "hunyuan-dense": DEEPSEEK3,
};

/**
 * The pre-tokenizer of this name. Throws `unsupported_model` when the name is missing or unknown: guessing would
 * tokenize almost right, which shows only as a worse model.
 */
export function ggufPreTokenizer(name: unknown): GgufPreTokenizer {
  const parameter = "tokenizer.ggml.pre";
  if (typeof name !== "string" || name === "") {
    throw new MistralError(
      "unsupported_model",
      "the GGUF file does not name its pre-tokenizer (tokenizer.ggml.pre); convert the model again with a current " +
        "converter, or give its tokenizer.json",
      { parameter },
    );
  }
  const known = Object.hasOwn(BY_NAME, name) ? BY_NAME[name] : undefined;
  if (known === undefined) {
    throw new MistralError(
      "unsupported_model",
      `the GGUF file's pre-tokenizer "${name}" (tokenizer.ggml.pre) is not supported; known are: ${Object.keys(BY_NAME).join(", ")}`,
      { parameter },
    );
  }
  return known;
}
