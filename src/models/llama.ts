/**
 * Llama 2 and 3.x, Mistral and SmolLM2: the plain decoder. Mistral adds a sliding window on every layer, which
 * is a number of the configuration.
 */

import { decoderTensors, recordDecoder } from "./decoder.ts";
import type { ModelFamily } from "./family.ts";

const BLOCK = { queryKeyNorm: false, outputNorms: false } as const;

export const llama: ModelFamily = {
  name: "llama",
  huggingFace: {
    LlamaForCausalLM: { rms_norm_eps: 1e-6, max_position_embeddings: 2048 },
    MistralForCausalLM: {
      rms_norm_eps: 1e-6,
      max_position_embeddings: 131_072,
      num_key_value_heads: 8,
      sliding_window: 4096,
    },
  },
  gguf: ["llama"],
  // The conversion permutes the rows of queries and keys so that neighbours are rotated together.
  ggufRopePairing: "interleaved",
  activation: "silu",
  scaledEmbeddings: false,
  huggingFaceNormWeightOffset: 0,
  queryKeyValueBiases: false,
  huggingFaceNames: {},
  tensors: (config) => decoderTensors(config, BLOCK),
  record: (recording) => recordDecoder(recording, BLOCK),
};
