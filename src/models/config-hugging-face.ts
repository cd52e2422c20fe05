/**
 * Reads a Hugging Face config.json: the form of transformers 4 (`rope_theta`, `rope_scaling`,
 * `rope_local_base_freq`) and of transformers 5 (`rope_parameters`, perhaps by type of layer).
 */

import type { Activation } from "../graph/record.ts";
import type { Checkpoint } from "../weights/types.ts";
import type { ArchitectureFacts, LayerConfig, ModelConfig } from "./config.ts";
import { CONFIG_LIMITS, ConfigSource } from "./config-source.ts";
import type { RopeScaling, RopeSettings } from "./rope-frequencies.ts";

type SafetensorsCheckpoint = Extract<Checkpoint, { format: "safetensors" }>;

const ACTIVATIONS: Readonly<Record<string, Activation>> = {
  silu: "silu",
  swish: "silu",
  gelu_pytorch_tanh: "gelu_tanh",
  gelu_new: "gelu_tanh",
  gelu: "gelu",
};

const THETA_DEFAULT = 10_000;

/** Reads the configuration of a safetensors checkpoint. Throws `invalid_model_file` or `unsupported_model`. */
export function readHuggingFaceConfig(
  checkpoint: SafetensorsCheckpoint,
  facts: ArchitectureFacts,
): ModelConfig {
  const where = `${checkpoint.folder}/config.json`;
  const stored = checkpoint.config;
  const architecture = String((stored.architectures as unknown[] | undefined)?.[0]);
  // Multimodal models keep the numbers of their language model apart.
  const hasTextPart = typeof stored.text_config === "object" && stored.text_config !== null;
  const values: Record<string, unknown> = {
    ...facts.huggingFace[architecture],
    ...(hasTextPart ? (stored.text_config as Record<string, unknown>) : stored),
  };
  const source = new ConfigSource(where, hasTextPart ? "text_config." : "", (key) =>
    Object.hasOwn(values, key) ? values[key] : undefined,
  );
  refuseWhatWeLack(source, stored);

  const width = source.integer("hidden_size", CONFIG_LIMITS.width);
  const heads = source.integer("num_attention_heads", CONFIG_LIMITS.heads);
  const headDim = readHeadDim(source, width, heads);
  const vocabularySize = source.integer("vocab_size", CONFIG_LIMITS.vocabulary);
  const contextLength = source.integer("max_position_embeddings", CONFIG_LIMITS.context);
  const attentionBias = source.boolean("attention_bias", false);
  const queryScalar = source.number("query_pre_attn_scalar", CONFIG_LIMITS.positive, headDim);
  return {
    architecture,
    layers: readLayers(source),
    width,
    feedForwardWidth: source.integer("intermediate_size", CONFIG_LIMITS.width),
    heads,
    keyValueHeads: source.integer("num_key_value_heads", CONFIG_LIMITS.heads, heads),
    headDim,
    vocabularySize,
    contextLength,
    normEpsilon: source.number("rms_norm_eps", CONFIG_LIMITS.positive),
    normWeightOffset: facts.huggingFaceNormWeightOffset,
    activation: readActivation(source, facts),
    embeddingScale: facts.scaledEmbeddings ? Math.sqrt(width) : 1,
    queryScale: queryScalar ** -0.5,
    attentionSoftCap: readSoftCap(source, "attn_logit_softcapping"),
    logitSoftCap: readSoftCap(source, "final_logit_softcapping"),
    tiedEmbeddings: source.boolean("tie_word_embeddings", false),
    biases: {
      queryKeyValue: facts.queryKeyValueBiases || attentionBias,
      attentionOutput: attentionBias,
      feedForward: source.boolean("mlp_bias", false),
    },
    ropes: readRopes(source, headDim, contextLength),
    ropePairing: "halves",
    endOfTextIds: readEndOfText(checkpoint, source, vocabularySize),
  };
}

/** Chat models often name the end of a turn only in generation_config.json. */
function readEndOfText(
  checkpoint: SafetensorsCheckpoint,
  source: ConfigSource,
  vocabularySize: number,
): number[] {
  const { folder, generationConfig = {} } = checkpoint;
  const generation = new ConfigSource(`${folder}/generation_config.json`, "", (key) => generationConfig[key]);
  const ids = [source, generation].flatMap((from) => from.tokenIds("eos_token_id", vocabularySize));
  return [...new Set(ids)];
}

function refuseWhatWeLack(source: ConfigSource, stored: Readonly<Record<string, unknown>>): void {
  if (stored.quantization_config != null) {
    source.refuse(
      "quantization_config",
      "is set; quantised safetensors are not read. Use a GGUF file of the model",
    );
  }
  if (source.boolean("use_bidirectional_attention", false)) {
    source.refuse("use_bidirectional_attention", "is true; only causal attention is available");
  }
}

function readHeadDim(source: ConfigSource, width: number, heads: number): number {
  if (!source.has("head_dim") && width % heads !== 0) {
    source.fail(
      "hidden_size",
      `is ${width}, which ${heads} attention heads do not divide, and head_dim is missing`,
    );
  }
  return source.integer("head_dim", CONFIG_LIMITS.headDim, width / heads);
}

function readSoftCap(source: ConfigSource, key: string): number {
  return source.has(key) ? source.number(key, CONFIG_LIMITS.positive) : 0;
}

function readActivation(source: ConfigSource, facts: ArchitectureFacts): Activation {
  const key = source.has("hidden_activation") ? "hidden_activation" : "hidden_act";
  const name = source.string(key);
  if (name === undefined) return facts.activation;
  const activation = Object.hasOwn(ACTIVATIONS, name) ? ACTIVATIONS[name] : undefined;
  return activation ?? source.refuse(key, `is "${name}"; we have ${Object.keys(ACTIVATIONS).join(", ")}`);
}

/** The types of the layers, from whichever of four ways the file uses to say it. */
function readLayers(source: ConfigSource): LayerConfig[] {
  const count = source.integer("num_hidden_layers", CONFIG_LIMITS.layers);
  const used = source.boolean("use_sliding_window", true) && source.has("sliding_window");
  const window = used ? source.integer("sliding_window", CONFIG_LIMITS.context) : 0;
  const slides = readLayerTypes(source, count) ?? slidingLayers(source, count, used);
  return slides.map((isSliding, index) => {
    if (isSliding && window === 0) {
      source.fail("layer_types", `says that layer ${index} slides, but there is no sliding_window`);
    }
    return isSliding ? { slidingWindow: window, rope: "local" } : { slidingWindow: 0, rope: "global" };
  });
}

function readLayerTypes(source: ConfigSource, count: number): boolean[] | undefined {
  const types = source.list("layer_types");
  if (types === undefined) return undefined;
  if (types.length !== count) source.fail("layer_types", `has ${types.length} entries for ${count} layers`);
  return types.map((type) => {
    if (type === "sliding_attention") return true;
    if (type === "full_attention") return false;
    return source.refuse(
      "layer_types",
      `holds ${JSON.stringify(type)}; we have full_attention, sliding_attention`,
    );
  });
}

function slidingLayers(source: ConfigSource, count: number, used: boolean): boolean[] {
  const layers = Array.from({ length: count }, (_, index) => index);
  if (!used) return layers.map(() => false);
  if (source.has("sliding_window_pattern")) {
    const pattern = source.integer("sliding_window_pattern", CONFIG_LIMITS.layers);
    return layers.map((index) => (index + 1) % pattern !== 0);
  }
  if (source.has("max_window_layers")) {
    const first = source.integer("max_window_layers", { minimum: 0, maximum: CONFIG_LIMITS.layers.maximum });
    return layers.map((index) => index >= first);
  }
  return layers.map(() => true);
}

function readRopes(source: ConfigSource, headDim: number, contextLength: number): ModelConfig["ropes"] {
  const read = (from: ConfigSource | undefined, theta: number): RopeSettings =>
    readRope(from, theta, source, headDim, contextLength);
  const theta = source.number("rope_theta", CONFIG_LIMITS.positive, THETA_DEFAULT);
  const localTheta = source.has("rope_local_base_freq")
    ? source.number("rope_local_base_freq", CONFIG_LIMITS.positive)
    : undefined;

  const parameters = source.object("rope_parameters");
  const [full, sliding] = [parameters?.object("full_attention"), parameters?.object("sliding_attention")];
  if (full !== undefined || sliding !== undefined) {
    return { global: read(full, theta), local: read(sliding, localTheta ?? theta) };
  }
  const global = read(parameters ?? source.object("rope_scaling"), theta);
  return { global, local: localTheta === undefined ? global : read(undefined, localTheta) };
}

/** One rotation: `from` holds its type and numbers, `theta` is what the file says elsewhere or by default. */
function readRope(
  from: ConfigSource | undefined,
  theta: number,
  source: ConfigSource,
  headDim: number,
  contextLength: number,
): RopeSettings {
  const holder = from?.has("partial_rotary_factor") ? from : source;
  const rotated = holder.number("partial_rotary_factor", { minimum: 1e-3, maximum: 1 }, 1);
  const dims = Math.floor(headDim * rotated);
  return {
    theta: from?.number("rope_theta", CONFIG_LIMITS.positive, theta) ?? theta,
    dims,
    scaling: from === undefined ? { type: "none" } : readScaling(from, source, contextLength, dims),
  };
}

function readScaling(
  from: ConfigSource,
  source: ConfigSource,
  contextLength: number,
  dims: number,
): RopeScaling {
  const key = from.has("rope_type") ? "rope_type" : "type";
  const type = from.string(key) ?? "default";
  const factor = (fallback?: number): number => from.number("factor", CONFIG_LIMITS.positive, fallback);
  const holder = from.has("original_max_position_embeddings") ? from : source;
  const original = holder.integer("original_max_position_embeddings", CONFIG_LIMITS.context, contextLength);
  switch (type) {
    case "default":
      return { type: "none" };
    case "linear":
      return { type, factor: factor() };
    case "dynamic":
      return { type, factor: factor(), originalContextLength: contextLength };
    case "llama3":
      return readLlama3(from, factor(), original);
    case "yarn":
      return readYarn(from, factor(contextLength / original), original);
    case "su":
    case "longrope": {
      const stretch = factor(contextLength / original);
      const natural = stretch <= 1 ? 1 : Math.sqrt(1 + Math.log(stretch) / Math.log(original));
      return {
        type: "longrope",
        longFactors: from.numbers("long_factor", dims / 2),
        shortFactors: from.numbers("short_factor", dims / 2),
        originalContextLength: original,
        attentionFactor: from.number("attention_factor", CONFIG_LIMITS.positive, natural),
      };
    }
    default:
      return from.refuse(key, `is "${type}"; we have default, linear, dynamic, llama3, yarn, longrope`);
  }
}

function readLlama3(from: ConfigSource, factor: number, originalContextLength: number): RopeScaling {
  const lowFrequencyFactor = from.number("low_freq_factor", CONFIG_LIMITS.positive);
  const highFrequencyFactor = from.number("high_freq_factor", CONFIG_LIMITS.positive);
  if (highFrequencyFactor <= lowFrequencyFactor) {
    from.fail(
      "high_freq_factor",
      `is ${highFrequencyFactor}, not above low_freq_factor (${lowFrequencyFactor})`,
    );
  }
  return { type: "llama3", factor, lowFrequencyFactor, highFrequencyFactor, originalContextLength };
}

function readYarn(from: ConfigSource, factor: number, originalContextLength: number): RopeScaling {
  const magnitude = (mscale: number): number => (factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1);
  const [mscale, mscaleAll] = ["mscale", "mscale_all_dim"].map((key) =>
    from.number(key, { minimum: 0, maximum: 1e3 }, 0),
  ) as [number, number];
  const natural = mscale && mscaleAll ? magnitude(mscale) / magnitude(mscaleAll) : magnitude(1);
  return {
    type: "yarn",
    factor,
    originalContextLength,
    betaFast: from.number("beta_fast", CONFIG_LIMITS.positive, 32),
    betaSlow: from.number("beta_slow", CONFIG_LIMITS.positive, 1),
    attentionFactor: from.number("attention_factor", CONFIG_LIMITS.positive, natural),
    truncate: from.boolean("truncate", true),
  };
}
