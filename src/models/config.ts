/**
 * The one form in which every model's configuration is known here, wherever it was read from, and the checks
 * that hold for all of them.
 */

import { MistralError } from "../errors.ts";
import type { Activation } from "../graph/record.ts";
import type { Checkpoint } from "../weights/types.ts";
import { readGgufConfig } from "./config-gguf.ts";
import { readHuggingFaceConfig } from "./config-hugging-face.ts";
import type { RopeSettings } from "./rope-frequencies.ts";

export type RopeKind = "global" | "local";

export interface LayerConfig {
  /** Keys that a row sees, its own included; 0 for all. */
  readonly slidingWindow: number;
  /** Which of the model's rotations the layer uses. */
  readonly rope: RopeKind;
}

export interface ModelConfig {
  /** As the file names it. */
  readonly architecture: string;
  readonly layers: readonly LayerConfig[];
  /** Elements of a token's hidden state. */
  readonly width: number;
  readonly feedForwardWidth: number;
  readonly heads: number;
  readonly keyValueHeads: number;
  readonly headDim: number;
  readonly vocabularySize: number;
  /** Tokens that the model was made for. */
  readonly contextLength: number;
  readonly normEpsilon: number;
  /** Added to the weights of norms: 1 where the file stores them less one. */
  readonly normWeightOffset: number;
  readonly activation: Activation;
  /** Multiplies the embeddings. */
  readonly embeddingScale: number;
  /** Multiplies the products of queries and keys. */
  readonly queryScale: number;
  /** 0 for none. */
  readonly attentionSoftCap: number;
  /** 0 for none. */
  readonly logitSoftCap: number;
  /** Whether the embedding table is also the output matrix. */
  readonly tiedEmbeddings: boolean;
  readonly biases: {
    readonly queryKeyValue: boolean;
    readonly attentionOutput: boolean;
    readonly feedForward: boolean;
  };
  readonly ropes: Readonly<Record<RopeKind, RopeSettings>>;
  /** interleaved pairs elements (2i, 2i + 1) of a head; halves pairs (i, i + pairs). */
  readonly ropePairing: "interleaved" | "halves";
  readonly endOfTextIds: readonly number[];
}

/** What the configuration of an architecture leaves to its class in transformers. */
export type ConfigDefaults = Readonly<Record<string, unknown>>;

export interface QueryScaleDims {
  readonly layerCount: number;
  readonly width: number;
  readonly heads: number;
  readonly headDim: number;
}

/** How a family of models appears in files; the part of a family that reading a configuration needs. */
export interface ArchitectureFacts {
  /** `architectures[0]` of config.json, each with the values that its config.json may leave out. */
  readonly huggingFace: Readonly<Record<string, ConfigDefaults>>;
  /** `general.architecture` of a GGUF file. */
  readonly gguf: readonly string[];
  /** How a GGUF file of this family stores rotated heads. */
  readonly ggufRopePairing: ModelConfig["ropePairing"];
  /** For families whose layers differ: every `pattern`-th layer is global, the others rotate with `theta`. */
  readonly ggufLocalLayers?: { readonly pattern: number; readonly theta: number };
  /** Where it is not `headDim ** -0.5`. */
  readonly ggufQueryScale?: (dims: QueryScaleDims) => number;
  readonly activation: Activation;
  /** Whether embeddings are multiplied with the square root of the width. */
  readonly scaledEmbeddings: boolean;
  /** 1 where safetensors store the weights of norms less one (GGUF stores them whole). */
  readonly huggingFaceNormWeightOffset: number;
  /** Whether the query, key and value projections always have biases. */
  readonly queryKeyValueBiases: boolean;
}

/** Reads and checks the configuration of a checkpoint of this architecture. */
export function readModelConfig(checkpoint: Checkpoint, facts: ArchitectureFacts): ModelConfig {
  const config =
    checkpoint.format === "gguf"
      ? readGgufConfig(checkpoint, facts)
      : readHuggingFaceConfig(checkpoint, facts);
  checkModelConfig(config);
  return config;
}

/** Checks what single keys cannot: that the numbers agree with each other. */
export function checkModelConfig(config: ModelConfig): void {
  const contradiction = (problem: string): never => {
    throw new MistralError("invalid_model_file", `the configuration contradicts itself: ${problem}`);
  };
  const { heads, keyValueHeads, headDim } = config;
  if (heads % keyValueHeads !== 0) {
    contradiction(`${heads} attention heads cannot share ${keyValueHeads} key/value heads evenly`);
  }
  for (const { dims, theta } of Object.values(config.ropes)) {
    if (dims % 2 !== 0 || dims < 2 || dims > headDim) {
      contradiction(`${dims} rotated elements of heads of ${headDim}`);
    }
    if (theta <= 1) contradiction(`the base of the rotation is ${theta}; it must be above 1`);
  }
}
