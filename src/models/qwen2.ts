/** Qwen2 and Qwen2.5: the plain decoder with biases on queries, keys and values. */

import { decoderTensors, recordDecoder } from "./decoder.ts";
import type { ModelFamily } from "./family.ts";

const BLOCK = { queryKeyNorm: false, outputNorms: false } as const;

export const qwen2: ModelFamily = {
  name: "qwen2",
  huggingFace: {
    Qwen2ForCausalLM: {
      rms_norm_eps: 1e-6,
      max_position_embeddings: 32_768,
      use_sliding_window: false,
      sliding_window: 4096,
      max_window_layers: 28,
    },
  },
  gguf: ["qwen2"],
  ggufRopePairing: "halves",
  activation: "silu",
  scaledEmbeddings: false,
  huggingFaceNormWeightOffset: 0,
  queryKeyValueBiases: true,
  huggingFaceNames: {},
  tensors: (config) => decoderTensors(config, BLOCK),
  record: (recording) => recordDecoder(recording, BLOCK),
};
