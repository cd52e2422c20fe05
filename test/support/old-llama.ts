/**
 * A tiny Llama with grouped heads in the format before GGUF and as its GGUF twin: the same bytes of weights in any
 * type, the same vocabulary. What it says is noise.
 */

import { DTYPES, type DType } from "../../src/backend/dtype.ts";
import { type Golden, ggufMetadata, ggufTensors, readGolden } from "../reference/tiny-checkpoint.ts";
import { type GgmlContent, writeGgml } from "./write-ggml.ts";
import { type GgufField, type GgufTensor, writeGguf } from "./write-gguf.ts";

const WIDTH = 64;
const HEADS = 4;
const KEY_VALUE_HEADS = 2;
const LAYERS = 3;
const WORDS = [
  " ",
  "the",
  " the",
  "he",
  "th",
  "e",
  "t",
  "h",
  "a",
  " a",
  "ä",
  " ä",
  "\n",
  "o",
  "ll",
  "llo",
  "hello",
  " hello",
];

/** Pieces behind the special tokens and bytes, likelier ones first, as SentencePiece scores them. */
const VOCABULARY = 3 + 256 + WORDS.length + 3;
const FIRST_WORD = 3 + 256;

const KEY_WIDTH = (WIDTH / HEADS) * KEY_VALUE_HEADS;

function golden(): Golden {
  const base = readGolden("llama2");
  const shapeOf = (name: string, [rows = 0, ...rest]: readonly number[]): readonly number[] => {
    if (name.includes("embed_tokens") || name.includes("lm_head")) return [VOCABULARY, ...rest];
    return /[kv]_proj/.test(name) ? [KEY_WIDTH, ...rest] : [rows, ...rest];
  };
  const config = {
    ...base.config,
    num_key_value_heads: KEY_VALUE_HEADS,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    vocab_size: VOCABULARY,
  };
  const parameters = Object.fromEntries(
    Object.entries(base.parameters).map(([name, shape]) => [name, shapeOf(name, shape)]),
  );
  return { ...base, config, parameters };
}

/** Blocks whose scales are small and whose other bits are drawn from `seed`. */
function randomBlocks(dtype: DType, elements: number, seed: number): Uint8Array {
  const { blockElements, blockBytes } = DTYPES[dtype];
  const bytes = new Uint8Array((elements / blockElements) * blockBytes);
  let state = seed >>> 0;
  for (let index = 0; index < bytes.length; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[index] = state >>> 24;
  }
  const view = new DataView(bytes.buffer);
  const scales = dtype === "q4_1" || dtype === "q5_1" ? 2 : 1;
  const scale = dtype === "q8_0" ? 0x1800 : 0x2800; // 2^-9 and 2^-5 in f16
  for (let at = 0; at < bytes.length; at += blockBytes) {
    view.setUint16(at, scale, true);
    if (scales === 2) view.setUint16(at + 2, 0xb000, true); // a minimum of -2^-3
  }
  return bytes;
}

function asType({ name, shape, data }: GgufTensor, dtype: DType, seed: number): GgufTensor {
  if (shape.length === 1 || dtype === "f32") return { name, dtype: "f32", shape, data };
  if (dtype === "f16") {
    const values = new Float32Array(data.buffer, data.byteOffset, data.byteLength / 4);
    return { name, dtype, shape, data: new Uint8Array(Float16Array.from(values).buffer) };
  }
  return { name, dtype, shape, data: randomBlocks(dtype, shape[0]! * shape[1]!, seed) };
}

const OLD_NAMES: Readonly<Record<string, string>> = {
  token_embd: "tok_embeddings",
  output_norm: "norm",
  output: "output",
  attn_norm: "attention_norm",
  attn_q: "attention.wq",
  attn_k: "attention.wk",
  attn_v: "attention.wv",
  attn_output: "attention.wo",
  ffn_norm: "ffn_norm",
  ffn_gate: "feed_forward.w1",
  ffn_down: "feed_forward.w2",
  ffn_up: "feed_forward.w3",
};

function oldName(name: string): string {
  const [, layer, part] = /^(?:blk\.(\d+)\.)?(.+)\.weight$/.exec(name) ?? [];
  return `${layer === undefined ? "" : `layers.${layer}.`}${OLD_NAMES[part!]}.weight`;
}

function tokens(): GgmlContent["tokens"] {
  const encoder = new TextEncoder();
  const bytes = Array.from({ length: 256 }, (_, byte) => ({ bytes: Uint8Array.of(byte), score: 0 }));
  const words = WORDS.map((word, index) => ({ bytes: encoder.encode(word), score: -index }));
  const fillers = [0, 1, 2].map((index) => ({
    bytes: encoder.encode(`<filler ${index}>`),
    score: -1000 - index,
  }));
  const special = [" \u2047 ", "", ""].map((text) => ({ bytes: encoder.encode(text), score: 0 }));
  return [...special, ...bytes, ...words, ...fillers];
}

function tokenizerFields(): Record<string, GgufField> {
  const pieces = tokens().map(({ bytes, score }, token) => {
    const named = ["<unk>", "<s>", "</s>"][token];
    const byte = `<0x${(token - 3).toString(16).toUpperCase().padStart(2, "0")}>`;
    const text = new TextDecoder().decode(bytes).replaceAll(" ", "▁");
    const type = token === 0 ? 2 : token < 3 ? 3 : token < FIRST_WORD ? 6 : 1;
    return { text: named ?? (token < FIRST_WORD ? byte : text), score, type };
  });
  return {
    "tokenizer.ggml.model": { type: "string", value: "llama" },
    "tokenizer.ggml.tokens": { type: "string[]", value: pieces.map(({ text }) => text) },
    "tokenizer.ggml.scores": { type: "f32[]", value: pieces.map(({ score }) => score) },
    "tokenizer.ggml.token_type": { type: "i32[]", value: pieces.map(({ type }) => type) },
    "tokenizer.ggml.bos_token_id": { type: "u32", value: 1 },
    "tokenizer.ggml.eos_token_id": { type: "u32", value: 2 },
  };
}

function weights(dtype: DType): GgufTensor[] {
  return ggufTensors(golden()).map((tensor, index) => asType(tensor, dtype, 1 + index));
}

/** The content of the GGML file, as `ggjt` version 3 unless changed. */
export function oldLlama(dtype: DType, changes: Partial<GgmlContent> = {}): GgmlContent {
  return {
    container: "ggjt",
    version: 3,
    width: WIDTH,
    heads: HEADS,
    layers: LAYERS,
    tokens: tokens(),
    tensors: weights(dtype).map((tensor) => ({ ...tensor, name: oldName(tensor.name) })),
    ...changes,
  };
}

/** Writes the model as a GGML file. */
export function writeOldLlama(path: string, dtype: DType, changes: Partial<GgmlContent> = {}): void {
  writeGgml(path, oldLlama(dtype, changes));
}

/** Writes the same weights and vocabulary as GGUF. */
export function writeOldLlamaTwin(path: string, dtype: DType): void {
  const model = golden();
  const rope = model.config.rope_parameters as Readonly<Record<string, number | string>>;
  writeGguf(path, {
    metadata: { ...ggufMetadata(model, rope), ...tokenizerFields() },
    tensors: weights(dtype),
  });
}
