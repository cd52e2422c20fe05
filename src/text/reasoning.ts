/**
 * Splits the text of an answer into what the model thought and what it says, while the text arrives. The chat
 * template tells how its model marks the border; the prompt tells on which side of it the answer begins. Every
 * character costs a constant, and no part of a marker goes out.
 */

import { HarmonySplitter } from "./reasoning-harmony.ts";
import { TagSplitter } from "./reasoning-tags.ts";
import type { Tokenizer } from "./types.ts";

export type TextPart = "content" | "reasoning";

/** A stretch of the text that belongs to one part. */
export interface TextPiece {
  readonly part: TextPart;
  /** Never empty. */
  readonly text: string;
  /** Where it lies in the whole text, markers included. */
  readonly start: number;
  readonly end: number;
}

export interface ReasoningSplitter {
  /** Reads on; returns what may go out now, in order. */
  read(text: string): readonly TextPiece[];
  /** Ends the text: what was held back goes out. */
  finish(): readonly TextPiece[];
  /** What comes next is not known to be part of the answer proper. */
  readonly inReasoning: boolean;
}

/** A model thinks between two markers. */
export interface ReasoningTags {
  readonly kind: "tags";
  readonly open: string;
  readonly close: string;
  /** A first line of each thought that is not part of it; "" where there is none. */
  readonly label: string;
}

export type ReasoningFormat = ReasoningTags | { readonly kind: "harmony" };

/** Markers that are no XML-like tags. The template mentions the close marker where it drops old thoughts. */
const KNOWN_TAGS: readonly ReasoningTags[] = [
  { kind: "tags", open: "<|channel>", close: "<channel|>", label: "thought" },
  { kind: "tags", open: "[THINK]", close: "[/THINK]", label: "" },
  { kind: "tags", open: "<|START_THINKING|>", close: "<|END_THINKING|>", label: "" },
  { kind: "tags", open: "<|inner_prefix|>", close: "<|inner_suffix|>", label: "" },
];

/** `</think>`, `</thinking>`, `</seed:think>`, `</think:opensource>`, ... */
const THINK_CLOSE = /<\/((?:\w{1,20}:)?think(?:ing)?(?::\w{1,20})?)>/;
const HARMONY_MARKERS = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>", "<|return|>"];
const MEDGEMMA: ReasoningTags = { kind: "tags", open: "<unused94>", close: "<unused95>", label: "thought" };

/** How a model with this chat template marks its thoughts; undefined when it has none that we know. */
export function reasoningFormatOf(templateSource: string): ReasoningFormat | undefined {
  const has = (text: string) => templateSource.includes(text);
  if (has("<|channel|>") || ["<|start|>", "<|message|>", "<|end|>"].every(has)) return { kind: "harmony" };
  if (has("</think>")) return tagsOf("think");
  const name = THINK_CLOSE.exec(templateSource)?.[1];
  if (name !== undefined) return tagsOf(name);
  const known = KNOWN_TAGS.find(({ open, close }) => has(open) && has(close));
  if (known !== undefined) return known;
  return has("<start_of_turn>") ? MEDGEMMA : undefined;
}

function tagsOf(name: string): ReasoningTags {
  return { kind: "tags", open: `<${name}>`, close: `</${name}>`, label: "" };
}

/** Special tokens that must stay in the text although special tokens are skipped, so that the splitter sees them. */
export function markerTokens(format: ReasoningFormat, tokenizer: Tokenizer): ReadonlySet<number> {
  const texts = format.kind === "harmony" ? HARMONY_MARKERS : [format.open, format.close];
  return new Set(texts.map((text) => tokenizer.tokenId(text)).filter((token) => token !== undefined));
}

/** @param prompt the rendered prompt, which may have opened or closed a thought for the model. */
export function reasoningSplitter(
  format: ReasoningFormat,
  prompt: string,
  tokenizer: Tokenizer,
): ReasoningSplitter {
  switch (format.kind) {
    case "harmony":
      return new HarmonySplitter(prompt);
    case "tags": {
      const marker = tokenizer.tokenId(format.open);
      return new TagSplitter(format, prompt, marker !== undefined && tokenizer.isSpecial(marker));
    }
  }
}
