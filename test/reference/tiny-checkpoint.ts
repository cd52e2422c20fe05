/**
 * The tiny models of `goldens/`: reads a golden, computes its weights from the seed as `make_goldens.py` does, and
 * writes them as a safetensors folder or as the GGUF file that llama.cpp's conversion would make of it.
 */

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type GgufField, type GgufTensor, writeGguf } from "../support/write-gguf.ts";
import { writeSafetensors } from "../support/write-safetensors.ts";

export interface Golden {
  readonly seed: number;
  /** As transformers wrote it. */
  readonly config: Readonly<Record<string, unknown>>;
  /** Shapes by Hugging Face name. */
  readonly parameters: Readonly<Record<string, readonly number[]>>;
  readonly tokens: readonly number[];
  /** The most likely next token of every row, and how far it is ahead of the second. */
  readonly top1: readonly number[];
  readonly margins: readonly number[];
  /** All logits of some rows. */
  readonly logits: Readonly<Record<string, readonly number[]>>;
  /** After the last norm: of the last token, and the mean over all tokens. */
  readonly hidden: { readonly last: readonly number[]; readonly mean: readonly number[] };
}

const FOLDER = join(import.meta.dir, "goldens");

export const GOLDEN_NAMES: readonly string[] = readdirSync(FOLDER)
  .filter((file) => file.endsWith(".json"))
  .map((file) => file.slice(0, -".json".length))
  .sort();

export function readGolden(name: string): Golden {
  return JSON.parse(readFileSync(join(FOLDER, `${name}.json`), "utf8")) as Golden;
}

/** FNV-1a, 32 bits. */
function hashName(name: string): number {
  let value = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(name)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/** `count` values in [-1, 1), each a multiple of 2^-23 (murmur3's finaliser). */
function uniform(seed: number, name: string, count: number): Float32Array {
  const base = hashName(name) ^ seed;
  return Float32Array.from({ length: count }, (_, index) => {
    let x = Math.imul(index, 0x9e3779b1) + base;
    x ^= x >>> 16;
    x = Math.imul(x, 0x85ebca6b);
    x ^= x >>> 13;
    x = Math.imul(x, 0xc2b2ae35);
    x ^= x >>> 16;
    return ((x >>> 8) - 2 ** 23) * 2 ** -23;
  });
}

function isGemma({ config }: Golden): boolean {
  return String(config.model_type).startsWith("gemma");
}

/** The values of a parameter, in Hugging Face's order. */
export function parameterValues(golden: Golden, name: string): Float32Array {
  const shape = golden.parameters[name]!;
  const values = uniform(
    golden.seed,
    name,
    shape.reduce((total, size) => total * size, 1),
  );
  const center = name.includes("norm") && !isGemma(golden) ? 1 : 0;
  return values.map((value) => center + value * 0.25);
}

function bytesOf(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** Writes config.json and model.safetensors into `folder`. */
export function writeHuggingFace(
  golden: Golden,
  folder: string,
  config: Readonly<Record<string, unknown>> = golden.config,
): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, "config.json"), JSON.stringify(config));
  const tensors = Object.entries(golden.parameters).map(([name, shape]) => ({
    name,
    shape,
    dtype: "f32" as const,
    data: bytesOf(parameterValues(golden, name)),
  }));
  writeSafetensors(join(folder, "model.safetensors"), tensors);
}

const GGUF_LAYER_NAMES: Readonly<Record<string, string>> = {
  input_layernorm: "attn_norm",
  "self_attn.q_proj": "attn_q",
  "self_attn.k_proj": "attn_k",
  "self_attn.v_proj": "attn_v",
  "self_attn.o_proj": "attn_output",
  "self_attn.q_norm": "attn_q_norm",
  "self_attn.k_norm": "attn_k_norm",
  post_attention_layernorm: "ffn_norm",
  "mlp.gate_proj": "ffn_gate",
  "mlp.up_proj": "ffn_up",
  "mlp.down_proj": "ffn_down",
};

const GGUF_GEMMA_NAMES: Readonly<Record<string, string>> = {
  post_attention_layernorm: "post_attention_norm",
  pre_feedforward_layernorm: "ffn_norm",
  post_feedforward_layernorm: "post_ffw_norm",
};

function ggufName(golden: Golden, name: string): string {
  if (name === "lm_head.weight") return "output.weight";
  if (name === "model.embed_tokens.weight") return "token_embd.weight";
  if (name === "model.norm.weight") return "output_norm.weight";
  const match = /^model\.layers\.(\d+)\.(.*)\.(weight|bias)$/.exec(name);
  if (match === null) throw new Error(`no GGUF name for ${name}`);
  const [, layer, middle, kind] = match;
  const names = isGemma(golden) ? { ...GGUF_LAYER_NAMES, ...GGUF_GEMMA_NAMES } : GGUF_LAYER_NAMES;
  return `blk.${layer}.${names[middle!]}.${kind}`;
}

/** Reorders the rows of each head from halves to neighbours, as the conversion of the llama architecture does. */
function permute(values: Float32Array, heads: number, headDim: number): Float32Array {
  const headLength = values.length / heads;
  const rowLength = headLength / headDim;
  const result = new Float32Array(values.length);
  for (let head = 0; head < heads; head++) {
    for (let row = 0; row < headDim; row++) {
      const from = (row % 2) * (headDim / 2) + Math.floor(row / 2);
      const source = head * headLength + from * rowLength;
      result.set(values.subarray(source, source + rowLength), head * headLength + row * rowLength);
    }
  }
  return result;
}

interface Sizes {
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
}

function sizesOf({ config }: Golden): Sizes {
  const heads = config.num_attention_heads as number;
  return {
    heads,
    keyValueHeads: config.num_key_value_heads as number,
    headDim: (config.head_dim as number | undefined) ?? (config.hidden_size as number) / heads,
  };
}

/** `general.architecture` of the GGUF file of a model. */
function ggufArchitecture({ config }: Golden): string {
  const type = String(config.model_type);
  if (type === "mistral") return "llama";
  return type === "gemma3_text" ? "gemma3" : type;
}

/** The weights in llama.cpp's order and under its names. */
export function ggufTensors(golden: Golden): GgufTensor[] {
  const { heads, keyValueHeads, headDim } = sizesOf(golden);
  const isPermuted = ggufArchitecture(golden) === "llama";
  return Object.entries(golden.parameters).map(([name, shape]) => {
    let values = parameterValues(golden, name);
    if (isPermuted && name.includes("q_proj")) values = permute(values, heads, headDim);
    if (isPermuted && name.includes("k_proj")) values = permute(values, keyValueHeads, headDim);
    if (isGemma(golden) && name.includes("norm")) values = values.map((value) => value + 1);
    return { name: ggufName(golden, name), dtype: "f32" as const, shape, data: bytesOf(values) };
  });
}

type RopeParameters = Readonly<Record<string, number | string>>;

/** What the conversion stores of a llama3 scaling: by how much each frequency is divided. */
function llama3Divisors(rope: RopeParameters, headDim: number): Float32Array {
  const { rope_theta, factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } =
    rope as Record<string, number>;
  return Float32Array.from({ length: headDim / 2 }, (_, pair) => {
    const wavelength = 2 * Math.PI * rope_theta! ** ((2 * pair) / headDim);
    const turns = original_max_position_embeddings! / wavelength;
    if (turns > high_freq_factor!) return 1;
    if (turns < low_freq_factor!) return factor!;
    const smooth = (turns - low_freq_factor!) / (high_freq_factor! - low_freq_factor!);
    return 1 / ((1 - smooth) / factor! + smooth);
  });
}

/** The configuration under GGUF's keys. */
export function ggufMetadata(golden: Golden, rope: RopeParameters): Record<string, GgufField> {
  const { config } = golden;
  const { heads, keyValueHeads, headDim } = sizesOf(golden);
  const architecture = ggufArchitecture(golden);
  const metadata: Record<string, GgufField> = {
    "general.architecture": { type: "string", value: architecture },
  };
  const add = (key: string, type: "u32" | "f32" | "string", value: unknown): void => {
    if (value != null) metadata[`${architecture}.${key}`] = { type, value: value as number };
  };
  add("block_count", "u32", config.num_hidden_layers);
  add("embedding_length", "u32", config.hidden_size);
  add("feed_forward_length", "u32", config.intermediate_size);
  add("context_length", "u32", config.max_position_embeddings);
  add("attention.head_count", "u32", heads);
  add("attention.head_count_kv", "u32", keyValueHeads);
  add("attention.key_length", "u32", headDim);
  add("attention.value_length", "u32", headDim);
  add("attention.layer_norm_rms_epsilon", "f32", config.rms_norm_eps);
  add("attention.sliding_window", "u32", config.sliding_window);
  add("final_logit_softcapping", "f32", config.final_logit_softcapping);
  add("rope.freq_base", "f32", rope.rope_theta);
  if (rope.rope_type === "linear" || rope.rope_type === "yarn") {
    add("rope.scaling.type", "string", rope.rope_type);
    add("rope.scaling.factor", "f32", rope.factor);
    add("rope.scaling.original_context_length", "u32", rope.original_max_position_embeddings);
  }
  if (config.use_sliding_window === true) {
    const slides = (config.layer_types as string[]).map((type) => type === "sliding_attention");
    metadata[`${architecture}.attention.sliding_window_pattern`] = { type: "bool[]", value: slides };
  }
  metadata["tokenizer.ggml.eos_token_id"] = { type: "u32", value: config.eos_token_id as number };
  return metadata;
}

/** Writes the GGUF twin of a model: the same values, unless changed, in llama.cpp's order and under its names. */
export function writeGgufTwin(
  golden: Golden,
  path: string,
  change: (tensor: GgufTensor) => GgufTensor = (tensor) => tensor,
): void {
  const parameters = golden.config.rope_parameters as Record<string, unknown>;
  const rope = (parameters.full_attention ?? parameters) as RopeParameters;
  const tensors = ggufTensors(golden).map(change);
  if (rope.rope_type === "llama3") {
    const divisors = llama3Divisors(rope, sizesOf(golden).headDim);
    tensors.push({
      name: "rope_freqs.weight",
      dtype: "f32",
      shape: [divisors.length],
      data: bytesOf(divisors),
    });
  }
  writeGguf(path, { metadata: ggufMetadata(golden, rope), tensors });
}
