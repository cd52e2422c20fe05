/**
 * Reads the configuration in the metadata of a GGUF file (GGUF specification, "Standardized key-value pairs";
 * what the specification leaves open is as llama.cpp reads it).
 */

import { listLength } from "../weights/deferred-map.ts";
import type { Checkpoint } from "../weights/types.ts";
import type { ArchitectureFacts, LayerConfig, ModelConfig } from "./config.ts";
import { CONFIG_LIMITS, ConfigSource } from "./config-source.ts";
import type { RopeScaling } from "./rope-frequencies.ts";

type GgufCheckpoint = Extract<Checkpoint, { format: "gguf" }>;

const THETA_DEFAULT = 10_000;

/** Reads the configuration of a GGUF checkpoint. Throws `invalid_model_file` or `unsupported_model`. */
export function readGgufConfig(checkpoint: GgufCheckpoint, facts: ArchitectureFacts): ModelConfig {
  const architecture = String(checkpoint.metadata.get("general.architecture"));
  const where = checkpoint.files[0]?.path ?? "GGUF file";
  const own = new ConfigSource(where, `${architecture}.`, (key) =>
    checkpoint.metadata.get(`${architecture}.${key}`),
  );
  const tokenizer = new ConfigSource(where, "tokenizer.ggml.", (key) =>
    checkpoint.metadata.get(`tokenizer.ggml.${key}`),
  );
  if (own.integer("expert_count", { minimum: 0, maximum: 1 << 16 }, 0) > 0) {
    own.refuse("expert_count", "is above 0; mixtures of experts are not available");
  }

  const layerCount = own.integer("block_count", CONFIG_LIMITS.layers);
  const width = own.integer("embedding_length", CONFIG_LIMITS.width);
  const heads = uniform(own, "attention.head_count", layerCount);
  const headDim = readHeadDim(own, width, heads);
  const vocabularySize = readVocabularySize(checkpoint, own, tokenizer);
  const has = (tensor: string): boolean => checkpoint.tensors.has(tensor);
  return {
    architecture,
    layers: readLayers(own, layerCount, facts),
    width,
    feedForwardWidth: uniform(own, "feed_forward_length", layerCount, CONFIG_LIMITS.width),
    heads,
    keyValueHeads: uniform(own, "attention.head_count_kv", layerCount, CONFIG_LIMITS.heads, heads),
    headDim,
    vocabularySize,
    contextLength: own.integer("context_length", CONFIG_LIMITS.context),
    normEpsilon: own.number("attention.layer_norm_rms_epsilon", CONFIG_LIMITS.positive),
    normWeightOffset: 0,
    activation: facts.activation,
    embeddingScale: facts.scaledEmbeddings ? Math.sqrt(width) : 1,
    queryScale: facts.ggufQueryScale?.({ layerCount, width, heads, headDim }) ?? headDim ** -0.5,
    attentionSoftCap: readSoftCap(own, "attn_logit_softcapping"),
    logitSoftCap: readSoftCap(own, "final_logit_softcapping"),
    tiedEmbeddings: !has("output.weight"),
    biases: {
      queryKeyValue: facts.queryKeyValueBiases || has("blk.0.attn_q.bias"),
      attentionOutput: has("blk.0.attn_output.bias"),
      feedForward: has("blk.0.ffn_down.bias"),
    },
    ropes: readRopes(own, headDim, facts),
    ropePairing: facts.ggufRopePairing,
    endOfTextIds: [
      ...new Set(
        ["eos_token_id", "eot_token_id", "eom_token_id"].flatMap((key) =>
          tokenizer.tokenIds(key, vocabularySize),
        ),
      ),
    ],
  };
}

/** A number, or a list by layer whose entries are all the same. */
function uniform(
  source: ConfigSource,
  key: string,
  layerCount: number,
  range: { readonly minimum: number; readonly maximum: number } = CONFIG_LIMITS.heads,
  fallback?: number,
): number {
  const value = source.raw(key);
  if (!Array.isArray(value)) return source.integer(key, range, fallback);
  const list = source.numbers(key, layerCount);
  if (new Set(list).size !== 1) source.refuse(key, "differs from layer to layer, which is not available");
  return new ConfigSource("", "", () => list[0]).integer(key, range);
}

function readHeadDim(own: ConfigSource, width: number, heads: number): number {
  if (!own.has("attention.key_length") && width % heads !== 0) {
    own.fail(
      "embedding_length",
      `is ${width}, which ${heads} heads do not divide, and attention.key_length is missing`,
    );
  }
  const headDim = own.integer("attention.key_length", CONFIG_LIMITS.headDim, width / heads);
  const valueDim = own.integer("attention.value_length", CONFIG_LIMITS.headDim, headDim);
  if (valueDim !== headDim) {
    own.refuse(
      "attention.value_length",
      `is ${valueDim} and attention.key_length ${headDim}; they must be equal`,
    );
  }
  return headDim;
}

/** The rows of the embedding table; what the metadata says must agree. */
function readVocabularySize(checkpoint: GgufCheckpoint, own: ConfigSource, tokenizer: ConfigSource): number {
  const tokens = listLength(checkpoint.metadata, "tokenizer.ggml.tokens") ?? tokenizer.list("tokens")?.length;
  const rows = checkpoint.tensors.get("token_embd.weight")?.shape[0] ?? tokens;
  const size = own.integer("vocab_size", CONFIG_LIMITS.vocabulary, rows);
  if (rows !== undefined && size !== rows)
    own.fail("vocab_size", `is ${size}, but token_embd.weight has ${rows} rows`);
  if (tokens !== undefined && tokens > size) {
    tokenizer.fail("tokens", `has ${tokens} entries, but token_embd.weight has ${size} rows`);
  }
  return size;
}

function readSoftCap(own: ConfigSource, key: string): number {
  return own.number(key, { minimum: 0, maximum: 1e30 }, 0);
}

function readLayers(own: ConfigSource, layerCount: number, facts: ArchitectureFacts): LayerConfig[] {
  const range = { minimum: 0, maximum: CONFIG_LIMITS.context.maximum };
  const window = own.integer("attention.sliding_window", range, 0);
  const global: LayerConfig = { slidingWindow: 0, rope: "global" };
  const local: LayerConfig = { slidingWindow: window, rope: "local" };
  const layers = Array.from({ length: layerCount }, (_, index) => index);
  if (window === 0) return layers.map(() => global);

  const key = "attention.sliding_window_pattern";
  const list = own.raw(key);
  if (Array.isArray(list)) {
    if (list.length !== layerCount) own.fail(key, `has ${list.length} entries for ${layerCount} layers`);
    return list.map((slides) => (slides ? local : global));
  }
  // Every n-th layer is global; 0 is none.
  const pattern = own.integer(
    key,
    { minimum: 0, maximum: layerCount + 1 },
    facts.ggufLocalLayers?.pattern ?? 0,
  );
  return layers.map((index) => (pattern === 0 || (index + 1) % pattern !== 0 ? local : global));
}

function readRopes(own: ConfigSource, headDim: number, facts: ArchitectureFacts): ModelConfig["ropes"] {
  const theta = own.number("rope.freq_base", CONFIG_LIMITS.positive, THETA_DEFAULT);
  const dims = own.integer("rope.dimension_count", CONFIG_LIMITS.headDim, headDim);
  const global = { theta, dims, scaling: readScaling(own) };
  if (facts.ggufLocalLayers === undefined) return { global, local: global };
  const localTheta = own.number("rope.freq_base_swa", CONFIG_LIMITS.positive, facts.ggufLocalLayers.theta);
  return { global, local: { theta: localTheta, dims, scaling: { type: "none" } } };
}

function readScaling(own: ConfigSource): RopeScaling {
  const type = own.string("rope.scaling.type") ?? "none";
  const factor = (): number => own.number("rope.scaling.factor", CONFIG_LIMITS.positive);
  switch (type) {
    case "none":
      return { type };
    case "linear":
      return { type, factor: factor() };
    case "yarn": {
      const stretch = factor();
      const magnitude = stretch <= 1 ? 1 : 0.1 * Math.log(stretch) + 1;
      return {
        type,
        factor: stretch,
        originalContextLength: own.integer("rope.scaling.original_context_length", CONFIG_LIMITS.context),
        betaFast: own.number("rope.scaling.yarn_beta_fast", CONFIG_LIMITS.positive, 32),
        betaSlow: own.number("rope.scaling.yarn_beta_slow", CONFIG_LIMITS.positive, 1),
        attentionFactor: magnitude * own.number("rope.scaling.attn_factor", CONFIG_LIMITS.positive, 1),
        truncate: true,
      };
    }
    default:
      return own.refuse("rope.scaling.type", `is "${type}"; we have none, linear, yarn`);
  }
}
