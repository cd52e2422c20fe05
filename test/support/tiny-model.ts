/**
 * A model small enough to load in no time that yet can be served: the weights of a golden, a tokenizer whose tokens
 * are characters, and a plain chat template. What it says is noise.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { readGolden, writeHuggingFace } from "../reference/tiny-checkpoint.ts";

const SPECIAL = ["<unk>", "<s>", "</s>"] as const;
const FIRST_CHARACTER = 32;
const LAST_CHARACTER = 126;

export interface TinyModelOptions {
  /** Tokens of context; the golden's own are few. */
  readonly contextLength?: number;
  readonly chatTemplate?: string;
}

const CHAT_TEMPLATE = `{% for message in messages %}{{ message.role }}: {{ message.content }}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}`;

/** Writes the model into `folder`, which becomes its path. */
export function writeTinyModel(folder: string, options: TinyModelOptions = {}): void {
  const golden = readGolden("smollm2");
  const { contextLength = 2048, chatTemplate = CHAT_TEMPLATE } = options;
  writeHuggingFace(golden, folder, { ...golden.config, max_position_embeddings: contextLength });
  const size = golden.config.vocab_size as number;
  const tokens = [...SPECIAL, "\n", ...characters()];
  for (let id = tokens.length; id < size; id++) tokens.push(`<extra_${id}>`);
  const tokenizer = {
    version: "1.0",
    added_tokens: SPECIAL.map((content, id) => ({ id, content, special: true })),
    normalizer: null,
    pre_tokenizer: null,
    post_processor: null,
    decoder: { type: "Fuse" },
    model: {
      type: "BPE",
      unk_token: SPECIAL[0],
      vocab: Object.fromEntries(tokens.map((text, id) => [text, id])),
      merges: [],
    },
  };
  writeFileSync(join(folder, "tokenizer.json"), JSON.stringify(tokenizer));
  const config = { bos_token: "<s>", eos_token: "</s>", unk_token: "<unk>" };
  writeFileSync(join(folder, "tokenizer_config.json"), JSON.stringify(config));
  writeFileSync(join(folder, "chat_template.jinja"), chatTemplate);
}

function characters(): string[] {
  const count = LAST_CHARACTER - FIRST_CHARACTER + 1;
  return Array.from({ length: count }, (_, index) => String.fromCharCode(FIRST_CHARACTER + index));
}
