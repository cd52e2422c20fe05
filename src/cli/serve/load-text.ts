/**
 * What the server needs of a model besides its engine: tokenizer, chat template, the tokens that end an answer and
 * the sampling values its authors recommend. Reads small files only.
 */

import { dirname } from "node:path";
import { readModelConfig } from "../../models/config.ts";
import { familyOf } from "../../models/registry.ts";
import { type GenerationDefaults, parseGenerationDefaults } from "../../server/generation/defaults.ts";
import { chatTemplateFrom } from "../../text/chat-template.ts";
import { findChatTemplate } from "../../text/chat-template-source.ts";
import { tokenizerFromFolder, tokenizerFromGguf } from "../../text/tokenizer.ts";
import type { ChatTemplate, Tokenizer } from "../../text/types.ts";
import type { Checkpoint } from "../../weights/types.ts";

export interface ModelText {
  readonly tokenizer: Tokenizer;
  /** Undefined where the model has none; it then only completes raw prompts. */
  readonly chatTemplate: ChatTemplate | undefined;
  readonly chatTemplateFrom: string;
  readonly generationDefaults: GenerationDefaults;
  readonly eosTokens: readonly number[];
}

/** Files that stand in for what the model brings. */
export interface TextFiles extends TemplateFiles {
  /** A tokenizer.json, with its companions beside it. */
  readonly tokenizerFile?: string | undefined;
}

export interface TemplateFiles {
  /** Another model's, whose tokenizer and template are used unless a file is named. */
  readonly tokenizerFolder?: string | undefined;
  readonly chatTemplate: string | undefined;
  /** The stronger of the two. */
  readonly jinjaExplicit: string | undefined;
}

/**
 * How families write the end of a turn. GGUF files often name only the end of a text in their metadata, and a chat
 * model that ends its turn would talk on.
 */
const END_OF_TURN_TEXTS = [
  "<|im_end|>",
  "<|eot_id|>",
  "<end_of_turn>",
  "<|end|>",
  "<|endoftext|>",
  "<|end_of_text|>",
];

/** Throws MistralError for malformed files, unknown tokenizers and templates that cannot be used. */
export function loadText(checkpoint: Checkpoint, files: TextFiles): ModelText {
  const tokenizer = loadTokenizer(checkpoint, files);
  const template = loadTemplate(checkpoint, tokenizer, files);
  return {
    tokenizer,
    chatTemplate: template?.chatTemplate,
    chatTemplateFrom: template?.from ?? "none",
    generationDefaults: parseGenerationDefaults(samplingConfig(checkpoint)),
    eosTokens: endTokens(checkpoint, tokenizer),
  };
}

function loadTokenizer(checkpoint: Checkpoint, { tokenizerFile, tokenizerFolder }: TextFiles): Tokenizer {
  const folder = tokenizerFile === undefined ? tokenizerFolder : dirname(tokenizerFile);
  if (folder !== undefined) return tokenizerFromFolder(folder);
  return checkpoint.format === "gguf"
    ? tokenizerFromGguf(checkpoint.metadata)
    : tokenizerFromFolder(checkpoint.folder);
}

/** Where the model's authors say how to sample: a file of its own, or else the model's configuration. */
function samplingConfig(checkpoint: Checkpoint): unknown {
  if (checkpoint.format === "gguf") return undefined;
  const { generationConfig, config } = checkpoint;
  return generationConfig ?? { ...(config.text_config as object | undefined), ...config };
}

function loadTemplate(
  checkpoint: Checkpoint,
  tokenizer: Tokenizer,
  files: TemplateFiles,
): { readonly from: string; readonly chatTemplate: ChatTemplate } | undefined {
  const found = findChatTemplate({
    explicitFile: files.jinjaExplicit,
    file: files.chatTemplate,
    // Files that happen to lie beside a GGUF file may belong to another model.
    ...(checkpoint.format === "gguf" ? { ggufMetadata: checkpoint.metadata } : { folder: checkpoint.folder }),
    ...(files.tokenizerFolder === undefined ? {} : { folder: files.tokenizerFolder }),
  });
  if (found === undefined) return undefined;
  const { bosText, eosText, unkText } = tokenizer;
  const special = { bosText, eosText, unkText, ...found.special };
  const plain = chatTemplateFrom(found.template, special);
  if (found.toolUse === undefined) return { from: found.from, chatTemplate: plain };
  const forTools = chatTemplateFrom(found.toolUse, special);
  const chatTemplate: ChatTemplate = {
    source: plain.source,
    render: (input) => ((input.tools?.length ?? 0) > 0 ? forTools : plain).render(input),
  };
  return { from: found.from, chatTemplate };
}

/** Every token that ends an answer: what the configuration names, the tokenizer's own, and known ends of turn. */
function endTokens(checkpoint: Checkpoint, tokenizer: Tokenizer): number[] {
  const named = readModelConfig(checkpoint, familyOf(checkpoint)).endOfTextIds;
  const known = END_OF_TURN_TEXTS.map((text) => tokenizer.tokenId(text)).filter(
    (token) => token !== undefined && tokenizer.isSpecial(token),
  );
  const tokens = [...named, tokenizer.eosToken, ...known].filter((token) => token !== undefined);
  return [...new Set(tokens)].sort((a, b) => a - b);
}
