/**
 * The names of a model's tensors: ours, and what each file format calls them. Finds the tensors that a model
 * needs in a checkpoint and checks their shapes; everything that is missing or misshapen is told at once.
 */

import { MistralError } from "../errors.ts";
import type { Checkpoint, TensorEntry } from "../weights/types.ts";

/** Tensors of the whole model: Hugging Face name (after the prefix of the language model), GGUF name. */
const MODEL_TENSORS = {
  embedding: ["embed_tokens.weight", "token_embd.weight"],
  output_norm: ["norm.weight", "output_norm.weight"],
} as const;

/** The output matrix stands beside the language model, not in it. */
const OUTPUT_NAMES = ["lm_head.weight", "language_model.lm_head.weight"] as const;

/** Tensors of one layer: Hugging Face name after `layers.N.`, GGUF name after `blk.N.`. */
const LAYER_TENSORS = {
  attention_norm: ["input_layernorm.weight", "attn_norm.weight"],
  query: ["self_attn.q_proj.weight", "attn_q.weight"],
  key: ["self_attn.k_proj.weight", "attn_k.weight"],
  value: ["self_attn.v_proj.weight", "attn_v.weight"],
  query_bias: ["self_attn.q_proj.bias", "attn_q.bias"],
  key_bias: ["self_attn.k_proj.bias", "attn_k.bias"],
  value_bias: ["self_attn.v_proj.bias", "attn_v.bias"],
  query_norm: ["self_attn.q_norm.weight", "attn_q_norm.weight"],
  key_norm: ["self_attn.k_norm.weight", "attn_k_norm.weight"],
  attention_output: ["self_attn.o_proj.weight", "attn_output.weight"],
  attention_output_bias: ["self_attn.o_proj.bias", "attn_output.bias"],
  attention_output_norm: ["post_attention_layernorm.weight", "post_attention_norm.weight"],
  feed_forward_norm: ["post_attention_layernorm.weight", "ffn_norm.weight"],
  gate: ["mlp.gate_proj.weight", "ffn_gate.weight"],
  gate_bias: ["mlp.gate_proj.bias", "ffn_gate.bias"],
  up: ["mlp.up_proj.weight", "ffn_up.weight"],
  up_bias: ["mlp.up_proj.bias", "ffn_up.bias"],
  down: ["mlp.down_proj.weight", "ffn_down.weight"],
  down_bias: ["mlp.down_proj.bias", "ffn_down.bias"],
  feed_forward_output_norm: ["post_feedforward_layernorm.weight", "post_ffw_norm.weight"],
} as const;

/** Divides the rotation's frequencies; only in GGUF files whose scaling is not a formula (Llama 3.x). */
export const ROPE_DIVISORS_NAME = "rope_freqs.weight";

export type ModelTensorName = keyof typeof MODEL_TENSORS | "output";
export type LayerTensorName = keyof typeof LAYER_TENSORS;

/** Our name of a tensor: `layer` is undefined for tensors of the whole model. */
export type TensorKey =
  | { readonly name: ModelTensorName; readonly layer?: undefined }
  | { readonly name: LayerTensorName; readonly layer: number };

export type TensorRequirement = TensorKey & {
  /** `[n, k]` of a matrix, `[n]` of a vector. */
  readonly shape: readonly number[];
};

/** Hugging Face names by which a family departs from the common ones. */
export type NameOverrides = Readonly<Partial<Record<LayerTensorName, string>>>;

/** A readable key: `output_norm`, `layers.3.query`. */
export function describeKey({ name, layer }: TensorKey): string {
  return layer === undefined ? name : `layers.${layer}.${name}`;
}

/** Where the names of the language model begin: alone, in a multimodal model, or saved without its head. */
const HUGGING_FACE_PREFIXES = [
  "model.",
  "model.language_model.",
  "language_model.model.",
  "language_model.",
  "",
];

function namesIn(checkpoint: Checkpoint, overrides: NameOverrides): (key: TensorKey) => string {
  if (checkpoint.format === "gguf") {
    return ({ name, layer }) => {
      if (layer !== undefined) return `blk.${layer}.${LAYER_TENSORS[name][1]}`;
      return name === "output" ? "output.weight" : MODEL_TENSORS[name][1];
    };
  }
  const { tensors } = checkpoint;
  const prefix =
    HUGGING_FACE_PREFIXES.find((start) => tensors.has(`${start}embed_tokens.weight`)) ?? "model.";
  const output = OUTPUT_NAMES.find((name) => tensors.has(name)) ?? OUTPUT_NAMES[0];
  return ({ name, layer }) => {
    if (layer !== undefined) return `${prefix}layers.${layer}.${overrides[name] ?? LAYER_TENSORS[name][0]}`;
    return name === "output" ? output : prefix + MODEL_TENSORS[name][0];
  };
}

/** Most problems named in one message; the rest are counted. */
const PROBLEMS_SHOWN = 8;

/**
 * Finds every required tensor. Answers entries by `describeKey`. Throws `invalid_model_file` that lists what is
 * missing and what has the wrong shape.
 */
export function findTensors(
  checkpoint: Checkpoint,
  requirements: readonly TensorRequirement[],
  overrides: NameOverrides = {},
): ReadonlyMap<string, TensorEntry> {
  const nameOf = namesIn(checkpoint, overrides);
  const found = new Map<string, TensorEntry>();
  const problems: string[] = [];
  const unread: string[] = [];
  for (const requirement of requirements) {
    const name = nameOf(requirement);
    const entry = checkpoint.tensors.get(name);
    const { shape } = requirement;
    const unreadType = checkpoint.unread?.get(name);
    if (unreadType !== undefined) unread.push(`${name} (${unreadType})`);
    else if (entry === undefined) problems.push(`${name} [${shape.join(", ")}] is missing`);
    else if (
      entry.shape.length !== shape.length ||
      entry.shape.some((size, index) => size !== shape[index])
    ) {
      problems.push(`${name} is [${entry.shape.join(", ")}], the configuration needs [${shape.join(", ")}]`);
    } else found.set(describeKey(requirement), entry);
  }
  const file = checkpoint.format === "gguf" ? checkpoint.files[0]?.path : checkpoint.folder;
  if (unread.length > 0) {
    throw new MistralError(
      "unsupported_model",
      `${file}: tensors of types that are not read: ${summary(unread)}`,
    );
  }
  if (problems.length > 0) {
    throw new MistralError(
      "invalid_model_file",
      `${file}: the tensors do not fit the model: ${summary(problems)}`,
    );
  }
  return found;
}

function summary(problems: readonly string[]): string {
  const more = problems.length - PROBLEMS_SHOWN;
  return problems.slice(0, PROBLEMS_SHOWN).join("; ") + (more > 0 ? `; and ${more} more` : "");
}
