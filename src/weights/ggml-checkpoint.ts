/**
 * A GGML file as a checkpoint: what its header holds under the keys and names of GGUF, and what it leaves out as
 * mistral.rs fills it in. Everything behind this file sees a GGUF model of the `llama` architecture.
 */

import { type GgmlFile, readGgmlFile } from "./ggml.ts";
import { malformed, quoted, unsupported } from "./malformed.ts";
import type { Checkpoint, GgufValue, TensorEntry } from "./types.ts";

/** The format does not say how long a text may be, nor the epsilon of the norms. */
const CONTEXT_LENGTH = 4096;
const NORM_EPSILON = 1e-5;

const TOKEN_UNKNOWN = 0;
const TOKEN_BOS = 1;
const TOKEN_EOS = 2;
/** Behind the three special tokens stands one for every byte. */
const FIRST_BYTE_TOKEN = 3;
const BYTE_TOKENS = 256;

/** `tokenizer.ggml.token_type` */
const TYPE = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

const MODEL_NAMES: Readonly<Record<string, string>> = {
  "tok_embeddings.weight": "token_embd.weight",
  "norm.weight": "output_norm.weight",
  "output.weight": "output.weight",
};

const LAYER_NAMES: Readonly<Record<string, string>> = {
  attention_norm: "attn_norm",
  "attention.wq": "attn_q",
  "attention.wk": "attn_k",
  "attention.wv": "attn_v",
  "attention.wo": "attn_output",
  ffn_norm: "ffn_norm",
  "feed_forward.w1": "ffn_gate",
  "feed_forward.w2": "ffn_down",
  "feed_forward.w3": "ffn_up",
};

/** Opens the GGML file at `path`. Throws `model_not_found`, `invalid_model_file` or `unsupported_model`. */
export function openGgml(path: string): Checkpoint {
  const file = readGgmlFile(path);
  const tensors = new Map(file.tensors.map((tensor) => [ggufName(tensor.name), tensor]));
  return {
    format: "gguf",
    container: "ggml",
    files: [{ path, bytes: file.bytes }],
    tensors,
    metadata: new Map([...modelMetadata(file, tensors), ...tokenizerMetadata(file)]),
  };
}

function ggufName(name: string): string {
  const known = MODEL_NAMES[name];
  if (known !== undefined) return known;
  const match = /^layers\.(\d+)\.(.+)\.weight$/.exec(name);
  const part = match === null ? undefined : LAYER_NAMES[match[2]!];
  return part === undefined ? name : `blk.${match![1]}.${part}.weight`;
}

type Tensors = ReadonlyMap<string, TensorEntry>;

function modelMetadata({ path, hyperparameters }: GgmlFile, tensors: Tensors): [string, GgufValue][] {
  const { width, heads, layers, rotatedDims } = hyperparameters;
  const rows = (name: string): number => {
    const tensor = tensors.get(name);
    if (tensor === undefined)
      throw malformed(path, undefined, `the tensor that is ${name} in GGUF is missing`);
    return tensor.shape[0]!;
  };
  const embedding = tensors.get("token_embd.weight");
  // Large models of the older containers came as several files, each with a stripe of every matrix.
  if (embedding !== undefined && embedding.shape[1] !== width) {
    const stripe = `${quoted(embedding.name)} is [${embedding.shape.join(", ")}] of a model of width ${width}`;
    throw unsupported(path, `one part of a model in several (${stripe}); only models in one file are read`);
  }
  const headDim = width / heads;
  const keyRows = rows("blk.0.attn_k.weight");
  if (keyRows % headDim !== 0) {
    throw malformed(path, undefined, `${keyRows} rows of keys are not a whole number of heads of ${headDim}`);
  }
  return [
    ["general.architecture", "llama"],
    ["llama.block_count", layers],
    ["llama.embedding_length", width],
    ["llama.feed_forward_length", rows("blk.0.ffn_gate.weight")],
    ["llama.context_length", CONTEXT_LENGTH],
    ["llama.attention.head_count", heads],
    ["llama.attention.head_count_kv", keyRows / headDim],
    ["llama.attention.layer_norm_rms_epsilon", NORM_EPSILON],
    ["llama.rope.dimension_count", rotatedDims],
  ];
}

/** The vocabulary as SentencePiece has it. Files without scores list pieces from the likeliest to the least. */
function tokenizerMetadata({ path, tokens, scores }: GgmlFile): [string, GgufValue][] {
  if (tokens.length <= TOKEN_EOS) throw malformed(path, undefined, `a vocabulary of ${tokens.length} tokens`);
  const pieces = tokens.map((bytes, token) => pieceOf(path, bytes, token));
  return [
    ["tokenizer.ggml.model", "llama"],
    ["tokenizer.ggml.tokens", pieces.map(({ text }) => text)],
    ["tokenizer.ggml.scores", scores ?? pieces.map((_, token) => -token)],
    ["tokenizer.ggml.token_type", pieces.map(({ type }) => type)],
    ["tokenizer.ggml.unknown_token_id", TOKEN_UNKNOWN],
    ["tokenizer.ggml.bos_token_id", TOKEN_BOS],
    ["tokenizer.ggml.eos_token_id", TOKEN_EOS],
  ];
}

/** The file has the bytes that a token prints, so that special tokens are empty and bytes are themselves. */
function pieceOf(path: string, bytes: Uint8Array, token: number): { text: string; type: number } {
  if (token === TOKEN_UNKNOWN) return { text: "<unk>", type: TYPE.unknown };
  if (token === TOKEN_BOS) return { text: "<s>", type: TYPE.control };
  if (token === TOKEN_EOS) return { text: "</s>", type: TYPE.control };
  if (bytes.length === 0) return { text: `<control_${token}>`, type: TYPE.control };
  const isByte = token < FIRST_BYTE_TOKEN + BYTE_TOKENS && bytes.length === 1;
  if (isByte) {
    const hex = bytes[0]!.toString(16).toUpperCase().padStart(2, "0");
    return { text: `<0x${hex}>`, type: TYPE.byte };
  }
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { text: text.replaceAll(" ", "\u2581"), type: TYPE.normal };
  } catch {
    throw malformed(path, undefined, `token ${token} of the vocabulary is not UTF-8`);
  }
}
