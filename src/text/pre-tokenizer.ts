/**
 * The pre-tokenizer: cuts ordinary text into words that are tokenized one by one. Owns the meaning of the
 * `pre_tokenizer` object of a tokenizer.json; Hugging Face's library supplies the regular expressions, which are
 * written in Oniguruma's dialect and must mean in JavaScript what they mean there.
 */

import { SplitPreTokenizer } from "@huggingface/tokenizers";
import { MistralError } from "../errors.ts";
import { SPACE_MARKER } from "./token-models.ts";

type Behavior = "Isolated" | "Removed" | "MergedWithPrevious" | "MergedWithNext" | "Contiguous";

/** Any object of a tokenizer.json. */
export type TokenizerNode = Readonly<Record<string, unknown>>;

export interface PreTokenizer {
  /** Words are UTF-8 bytes to the model (byte-level BPE), not characters. */
  readonly byteLevel: boolean;
  /** Cuts a stretch of text; `first`: nothing of the input lies before it. */
  split(text: string, first: boolean): string[];
}

type Stage = (words: string[], first: boolean) => string[];

/** GPT-2's own pattern, which ByteLevel applies unless told not to. */
export const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

function compilePattern(pattern: unknown): RegExp {
  const compiled: unknown = Reflect.get(
    new SplitPreTokenizer({ type: "Split", pattern } as never),
    "pattern",
  );
  if (!(compiled instanceof RegExp)) {
    throw new MistralError(
      "unsupported_model",
      `tokenizer: split pattern ${JSON.stringify(pattern)} is not understood`,
    );
  }
  return compiled;
}

/** The whole text as consecutive pieces, each a match of the pattern or what lies between matches. */
function* pieces(text: string, pattern: RegExp): Generator<{ piece: string; isMatch: boolean }> {
  let done = 0;
  for (const match of text.matchAll(pattern)) {
    if (match[0] === "") continue;
    if (match.index > done) yield { piece: text.slice(done, match.index), isMatch: false };
    yield { piece: match[0], isMatch: true };
    done = match.index + match[0].length;
  }
  if (done < text.length) yield { piece: text.slice(done), isMatch: false };
}

function splitOne(
  text: string,
  pattern: RegExp,
  behavior: Behavior,
  invert: boolean,
  output: string[],
): void {
  let previous: "none" | "delimiter" | "text" = "none";
  for (const { piece, isMatch } of pieces(text, pattern)) {
    const isDelimiter = isMatch !== invert;
    const joins =
      (behavior === "MergedWithPrevious" && isDelimiter && previous === "text") ||
      (behavior === "MergedWithNext" && !isDelimiter && previous === "delimiter") ||
      (behavior === "Contiguous" && previous === (isDelimiter ? "delimiter" : "text"));
    if (joins) output[output.length - 1] += piece;
    else if (behavior !== "Removed" || !isDelimiter) output.push(piece);
    previous = isDelimiter ? "delimiter" : "text";
  }
}

function splitStage(pattern: unknown, behavior: Behavior = "Isolated", invert = false): Stage {
  const compiled = compilePattern(pattern);
  return (words) => {
    const output: string[] = [];
    for (const word of words) splitOne(word, compiled, behavior, invert, output);
    return output;
  };
}

function metaspaceStage(node: TokenizerNode): Stage {
  const marker = typeof node.replacement === "string" ? node.replacement : SPACE_MARKER;
  const scheme = node.prepend_scheme ?? (node.add_prefix_space === false ? "never" : "always");
  const cut = node.split === false ? undefined : splitStage({ String: marker }, "MergedWithNext");
  return (words, first) => {
    const marked = words.map((word, index) => {
      const text = word.replaceAll(" ", marker);
      const prepend = scheme === "always" || (scheme === "first" && first && index === 0);
      return prepend && !text.startsWith(marker) ? marker + text : text;
    });
    return cut === undefined ? marked : cut(marked, first);
  };
}

function byteLevelStages(node: TokenizerNode): Stage[] {
  const stages: Stage[] = [];
  if (node.add_prefix_space === true) {
    stages.push((words) => words.map((word) => (word.startsWith(" ") ? word : ` ${word}`)));
  }
  if (node.use_regex !== false) stages.push(splitStage({ Regex: GPT2_PATTERN }));
  return stages;
}

function stagesOf(node: TokenizerNode): Stage[] {
  switch (node.type) {
    case "Split":
      return [splitStage(node.pattern, node.behavior as Behavior, node.invert === true)];
    case "Digits":
      return [splitStage({ Regex: node.individual_digits === true ? "\\p{N}" : "\\p{N}+" })];
    case "Punctuation":
      return [splitStage({ Regex: "[\\p{P}!-/:-@\\[-`{-~]" }, node.behavior as Behavior | undefined)];
    case "WhitespaceSplit":
      return [splitStage({ Regex: "\\s+" }, "Removed")];
    case "Metaspace":
      return [metaspaceStage(node)];
    case "ByteLevel":
      return byteLevelStages(node);
    default:
      throw new MistralError(
        "unsupported_model",
        `tokenizer: pre-tokenizer ${String(node.type)} is not supported`,
      );
  }
}

function flatten(node: TokenizerNode): TokenizerNode[] {
  if (node.type !== "Sequence") return [node];
  return (node.pretokenizers as TokenizerNode[]).flatMap(flatten);
}

/**
 * Compiles the `pre_tokenizer` of a tokenizer.json; undefined when it has none. Throws `unsupported_model` for
 * kinds that are not known.
 */
export function compilePreTokenizer(node: TokenizerNode | null | undefined): PreTokenizer | undefined {
  if (node === null || node === undefined) return undefined;
  const nodes = flatten(node);
  const byteLevelAt = nodes.findIndex(({ type }) => type === "ByteLevel");
  if (byteLevelAt >= 0 && byteLevelAt !== nodes.length - 1) {
    throw new MistralError(
      "unsupported_model",
      "tokenizer: a pre-tokenizer after ByteLevel is not supported",
    );
  }
  const stages = nodes.flatMap(stagesOf);
  return {
    byteLevel: byteLevelAt >= 0,
    split: (text, first) => stages.reduce((words, stage) => stage(words, first), [text]),
  };
}
