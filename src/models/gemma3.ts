/**
 * Gemma 3, text: norms around attention and feed-forward network, norms of heads, scaled embeddings, GELU, and
 * five local layers (sliding window, rotation of base 10 000) to each global one.
 */

import type { ConfigDefaults } from "./config.ts";
import { decoderTensors, recordDecoder } from "./decoder.ts";
import type { ModelFamily } from "./family.ts";

const BLOCK = { queryKeyNorm: true, outputNorms: true } as const;
const LOCAL_LAYERS = { pattern: 6, theta: 10_000 } as const;

/** Gemma 3 27B scales queries as if its heads filled the model; nothing but its depth tells it apart in GGUF. */
const LAYERS_27B = 62;

const DEFAULTS: ConfigDefaults = {
  vocab_size: 262_208,
  hidden_size: 2304,
  intermediate_size: 9216,
  num_hidden_layers: 26,
  num_attention_heads: 8,
  num_key_value_heads: 4,
  head_dim: 256,
  max_position_embeddings: 131_072,
  rms_norm_eps: 1e-6,
  eos_token_id: 1,
  tie_word_embeddings: true,
  query_pre_attn_scalar: 256,
  sliding_window: 4096,
  sliding_window_pattern: LOCAL_LAYERS.pattern,
  rope_theta: 1_000_000,
  rope_local_base_freq: LOCAL_LAYERS.theta,
};

export const gemma3: ModelFamily = {
  name: "gemma3",
  huggingFace: { Gemma3ForCausalLM: DEFAULTS, Gemma3ForConditionalGeneration: DEFAULTS },
  gguf: ["gemma3"],
  ggufRopePairing: "halves",
  ggufLocalLayers: LOCAL_LAYERS,
  ggufQueryScale: ({ layerCount, width, heads, headDim }) =>
    (layerCount === LAYERS_27B ? width / heads : headDim) ** -0.5,
  activation: "gelu_tanh",
  scaledEmbeddings: true,
  huggingFaceNormWeightOffset: 1,
  queryKeyValueBiases: false,
  huggingFaceNames: { feed_forward_norm: "pre_feedforward_layernorm.weight" },
  tensors: (config) => decoderTensors(config, BLOCK),
  record: (recording) => recordDecoder(recording, BLOCK),
};
