/** Qwen3, dense: no biases, but a norm of every head of queries and keys. */

import { decoderTensors, recordDecoder } from "./decoder.ts";
import type { ModelFamily } from "./family.ts";

const BLOCK = { queryKeyNorm: true, outputNorms: false } as const;

export const qwen3: ModelFamily = {
  name: "qwen3",
  huggingFace: {
    Qwen3ForCausalLM: {
      rms_norm_eps: 1e-6,
      max_position_embeddings: 32_768,
      head_dim: 128,
      use_sliding_window: false,
      sliding_window: 4096,
      max_window_layers: 28,
    },
  },
  gguf: ["qwen3"],
  ggufRopePairing: "halves",
  activation: "silu",
  scaledEmbeddings: false,
  huggingFaceNormWeightOffset: 0,
  queryKeyValueBiases: false,
  huggingFaceNames: {},
  tensors: (config) => decoderTensors(config, BLOCK),
  record: (recording) => recordDecoder(recording, BLOCK),
};
