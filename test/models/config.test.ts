import { describe, expect, test } from "bun:test";
import type { MistralError } from "../../src/errors.ts";
import { type ModelConfig, readModelConfig } from "../../src/models/config.ts";
import { familyOf } from "../../src/models/registry.ts";
import type { Checkpoint, GgufValue } from "../../src/weights/types.ts";
import { GOLDEN_NAMES, readGolden } from "../reference/tiny-checkpoint.ts";

const NO_TENSORS = { files: [{ path: "model.gguf", bytes: 1 }], tensors: new Map() } as const;

function readJson(config: Record<string, unknown>, generationConfig?: Record<string, unknown>): ModelConfig {
  const checkpoint: Checkpoint = {
    ...NO_TENSORS,
    format: "safetensors",
    folder: "m",
    config,
    ...(generationConfig === undefined ? {} : { generationConfig }),
  };
  return readModelConfig(checkpoint, familyOf(checkpoint));
}

function readGguf(entries: Record<string, GgufValue>): ModelConfig {
  const checkpoint: Checkpoint = {
    ...NO_TENSORS,
    format: "gguf",
    metadata: new Map(Object.entries(entries)),
  };
  return readModelConfig(checkpoint, familyOf(checkpoint));
}

function failure(action: () => unknown): MistralError {
  try {
    action();
  } catch (error) {
    return error as MistralError;
  }
  throw new Error("it did not fail");
}

const LLAMA = {
  architectures: ["LlamaForCausalLM"],
  hidden_size: 64,
  intermediate_size: 96,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 100,
  max_position_embeddings: 128,
  rms_norm_eps: 1e-5,
  eos_token_id: [7, 8],
};

const GGUF_LLAMA: Record<string, GgufValue> = {
  "general.architecture": "llama",
  "llama.block_count": 2,
  "llama.embedding_length": 64,
  "llama.feed_forward_length": 96,
  "llama.attention.head_count": 4,
  "llama.attention.head_count_kv": 2n,
  "llama.attention.layer_norm_rms_epsilon": 1e-5,
  "llama.context_length": 128,
  "llama.vocab_size": 100,
};

describe("config.json", () => {
  test("a plain Llama, with what its class leaves out", () => {
    const { num_key_value_heads: _heads, rms_norm_eps: _epsilon, ...rest } = LLAMA;
    const config = readJson(rest);
    expect(config).toMatchObject({
      architecture: "LlamaForCausalLM",
      keyValueHeads: 4,
      headDim: 16,
      normEpsilon: 1e-6,
      queryScale: 0.25,
      tiedEmbeddings: false,
      ropePairing: "halves",
      endOfTextIds: [7, 8],
    });
    expect(config.ropes.global).toEqual({ theta: 10_000, dims: 16, scaling: { type: "none" } });
    expect(config.layers).toEqual(new Array(2).fill({ slidingWindow: 0, rope: "global" }));
  });

  test("rope_theta with rope_scaling and rope_parameters say the same", () => {
    const scaling = {
      factor: 8,
      low_freq_factor: 1,
      high_freq_factor: 4,
      original_max_position_embeddings: 32,
    };
    const old = readJson({
      ...LLAMA,
      rope_theta: 500_000,
      rope_scaling: { rope_type: "llama3", ...scaling },
    });
    const older = readJson({ ...LLAMA, rope_theta: 500_000, rope_scaling: { type: "llama3", ...scaling } });
    const current = readJson({
      ...LLAMA,
      rope_parameters: { rope_type: "llama3", rope_theta: 500_000, ...scaling },
    });
    expect(old.ropes.global.scaling).toMatchObject({ type: "llama3", factor: 8, originalContextLength: 32 });
    expect(older).toEqual(old);
    expect(current).toEqual(old);
  });

  test("Gemma 3: the old and the new form say the same, and the text part of the multimodal model too", () => {
    const text = {
      num_hidden_layers: 7,
      hidden_size: 64,
      vocab_size: 100,
      intermediate_size: 96,
      head_dim: 32,
      sliding_window: 512,
    };
    const old = readJson({
      ...text,
      architectures: ["Gemma3ForCausalLM"],
      rope_scaling: { rope_type: "linear", factor: 8 },
      rope_theta: 1e6,
      rope_local_base_freq: 1e4,
    });
    const layerTypes = Array.from({ length: 7 }, (_, i) =>
      i === 5 ? "full_attention" : "sliding_attention",
    );
    const current = readJson({
      ...text,
      architectures: ["Gemma3ForCausalLM"],
      layer_types: layerTypes,
      rope_parameters: {
        full_attention: { rope_type: "linear", factor: 8, rope_theta: 1e6 },
        sliding_attention: { rope_type: "default", rope_theta: 1e4 },
      },
    });
    expect(old.layers.map((layer) => layer.slidingWindow)).toEqual([512, 512, 512, 512, 512, 0, 512]);
    expect(old.layers.map((layer) => layer.rope)).toEqual(
      [..."lllllgl"].map((kind) => (kind === "l" ? "local" : "global")),
    );
    expect(old).toMatchObject({
      heads: 8,
      keyValueHeads: 4,
      queryScale: 1 / 16,
      embeddingScale: 8,
      normWeightOffset: 1,
      tiedEmbeddings: true,
      activation: "gelu_tanh",
    });
    expect(old.ropes.global.scaling).toEqual({ type: "linear", factor: 8 });
    expect(old.ropes.local).toEqual({ theta: 1e4, dims: 32, scaling: { type: "none" } });
    expect(current).toEqual(old);
    const multimodal = readJson({
      architectures: ["Gemma3ForConditionalGeneration"],
      text_config: { ...text, rope_scaling: { rope_type: "linear", factor: 8 } },
    });
    expect(multimodal).toEqual({ ...old, architecture: "Gemma3ForConditionalGeneration" });
  });

  test("windows: every layer of Mistral, the upper layers of Qwen2 when it is told to", () => {
    const windows = (config: ModelConfig) => config.layers.map((layer) => layer.slidingWindow);
    const mistral = { ...LLAMA, architectures: ["MistralForCausalLM"] };
    expect(windows(readJson({ ...mistral, sliding_window: 8 }))).toEqual([8, 8]);
    expect(windows(readJson({ ...mistral, sliding_window: null }))).toEqual([0, 0]);
    // The class has a window of 4096 when config.json is silent.
    expect(windows(readJson(mistral))).toEqual([4096, 4096]);
    const qwen2 = { ...LLAMA, architectures: ["Qwen2ForCausalLM"], sliding_window: 8, max_window_layers: 1 };
    expect(windows(readJson(qwen2))).toEqual([0, 0]);
    expect(windows(readJson({ ...qwen2, use_sliding_window: true }))).toEqual([0, 8]);
    expect(readJson(qwen2).biases).toEqual({
      queryKeyValue: true,
      attentionOutput: false,
      feedForward: false,
    });
  });

  test("generation_config.json adds ends of text", () => {
    expect(readJson(LLAMA, { eos_token_id: [8, 9] }).endOfTextIds).toEqual([7, 8, 9]);
  });

  const wrong: [string, Record<string, unknown>, string, string][] = [
    ["missing", { vocab_size: undefined }, "invalid_model_file", "m/config.json: vocab_size is missing"],
    ["absurd", { num_hidden_layers: 1e6 }, "invalid_model_file", "num_hidden_layers is 1000000, not between"],
    ["negative", { hidden_size: -64 }, "invalid_model_file", "hidden_size is -64, not between 1 and"],
    [
      "fractional",
      { num_attention_heads: 3.5 },
      "invalid_model_file",
      "num_attention_heads is 3.5, not an integer",
    ],
    ["a string", { rms_norm_eps: "small" }, "invalid_model_file", 'rms_norm_eps is "small", not a number'],
    [
      "undivided",
      { hidden_size: 66 },
      "invalid_model_file",
      "hidden_size is 66, which 4 attention heads do not",
    ],
    [
      "contradictory",
      { num_key_value_heads: 3 },
      "invalid_model_file",
      "4 attention heads cannot share 3 key/value",
    ],
    ["odd rotation", { head_dim: 15 }, "invalid_model_file", "15 rotated elements of heads of 15"],
    [
      "eos outside",
      { eos_token_id: 100 },
      "invalid_model_file",
      "eos_token_id is 100, not a token of a vocabulary",
    ],
    ["activation", { hidden_act: "relu" }, "unsupported_model", 'hidden_act is "relu"; we have silu'],
    [
      "rope type",
      { rope_scaling: { type: "spiral" } },
      "unsupported_model",
      'rope_scaling.type is "spiral"; we have',
    ],
    [
      "rope factor",
      { rope_scaling: { type: "linear" } },
      "invalid_model_file",
      "rope_scaling.factor is missing",
    ],
    [
      "rope bands",
      { rope_scaling: { type: "llama3", factor: 8, low_freq_factor: 4, high_freq_factor: 4 } },
      "invalid_model_file",
      "high_freq_factor is 4, not above low_freq_factor (4)",
    ],
    [
      "longrope factors",
      { rope_scaling: { type: "longrope", long_factor: [1, 2], short_factor: [1, 2] } },
      "invalid_model_file",
      "rope_scaling.long_factor has 2 entries instead of 8",
    ],
    ["quantised", { quantization_config: { bits: 4 } }, "unsupported_model", "quantization_config is set"],
    [
      "layer types",
      { layer_types: ["full_attention"] },
      "invalid_model_file",
      "layer_types has 1 entries for 2 layers",
    ],
    [
      "unknown layer type",
      { layer_types: ["full_attention", "linear_attention"] },
      "unsupported_model",
      'layer_types holds "linear_attention"',
    ],
    [
      "window without size",
      { layer_types: ["full_attention", "sliding_attention"] },
      "invalid_model_file",
      "layer 1 slides, but there is no sliding_window",
    ],
  ];
  for (const [name, change, code, message] of wrong) {
    test(`${name} is refused by name`, () => {
      const error = failure(() => readJson({ ...LLAMA, ...change }));
      expect(error.code as string).toBe(code);
      expect(error.message).toContain(message);
    });
  }

  test("random damage is always a named error or a valid configuration", () => {
    const values = [undefined, null, -1, 0, 0.5, 1e308, "x", [], {}, true, Number.NaN, 2 ** 53];
    for (const name of GOLDEN_NAMES) {
      const { config } = readGolden(name);
      for (const key of Object.keys(config)) {
        if (key === "architectures") continue;
        for (const value of values) {
          try {
            const read = readJson({ ...config, [key]: value });
            expect(read.heads % read.keyValueHeads).toBe(0);
          } catch (error) {
            const { code, message } = error as MistralError;
            if (code === undefined) throw new Error(`${name}: ${key} = ${value}: ${message}`);
            expect(["invalid_model_file", "unsupported_model"]).toContain(code);
          }
        }
      }
    }
  });
});

describe("GGUF metadata", () => {
  test("a plain Llama: neighbours are rotated together, embeddings are tied without an output matrix", () => {
    const config = readGguf(GGUF_LLAMA);
    expect(config).toMatchObject({
      keyValueHeads: 2,
      headDim: 16,
      vocabularySize: 100,
      ropePairing: "interleaved",
      tiedEmbeddings: true,
      normWeightOffset: 0,
    });
  });

  test("Gemma 3 has local layers of base 10 000 with every sixth global", () => {
    const entries = Object.entries(GGUF_LLAMA).map(([key, value]) => [
      key.replace("llama.", "gemma3."),
      value,
    ]);
    const config = readGguf({
      ...Object.fromEntries(entries),
      "general.architecture": "gemma3",
      "gemma3.block_count": 7,
      "gemma3.attention.sliding_window": 512,
      "gemma3.rope.freq_base": 1e6,
      "gemma3.attention.key_length": 256,
    });
    expect(config.layers.map((layer) => layer.slidingWindow)).toEqual([512, 512, 512, 512, 512, 0, 512]);
    expect(config.ropes.local.theta).toBe(1e4);
    expect(config.ropes.global.theta).toBe(1e6);
    expect(config.queryScale).toBe(1 / 16);
    expect(config.embeddingScale).toBe(8);
    expect(config.ropePairing).toBe("halves");
  });

  const wrong: [string, Record<string, GgufValue | undefined>, string, string][] = [
    [
      "missing",
      { "llama.block_count": undefined },
      "invalid_model_file",
      "model.gguf: llama.block_count is missing",
    ],
    ["experts", { "llama.expert_count": 8 }, "unsupported_model", "llama.expert_count is above 0"],
    ["scaling", { "llama.rope.scaling.type": "su" }, "unsupported_model", 'llama.rope.scaling.type is "su"'],
    ["value width", { "llama.attention.value_length": 8 }, "unsupported_model", "they must be equal"],
    [
      "heads by layer",
      { "llama.attention.head_count_kv": [2, 4] },
      "unsupported_model",
      "differs from layer to layer",
    ],
    [
      "too few heads",
      { "llama.attention.head_count_kv": [2] },
      "invalid_model_file",
      "has 1 entries instead of 2",
    ],
    [
      "huge",
      { "llama.context_length": 2n ** 63n },
      "invalid_model_file",
      "llama.context_length is 9223372036854775808",
    ],
  ];
  for (const [name, change, code, message] of wrong) {
    test(`${name} is refused by name`, () => {
      const entries = Object.entries({ ...GGUF_LLAMA, ...change }).filter(([, value]) => value !== undefined);
      const error = failure(() => readGguf(Object.fromEntries(entries) as Record<string, GgufValue>));
      expect(error.code as string).toBe(code);
      expect(error.message).toContain(message);
    });
  }

  test("a list of equal head counts is one number", () => {
    expect(readGguf({ ...GGUF_LLAMA, "llama.attention.head_count_kv": [2, 2] }).keyValueHeads).toBe(2);
  });
});

describe("registry", () => {
  test("an unknown architecture is refused with what we have", () => {
    const json = failure(() => readJson({ ...LLAMA, architectures: ["MambaForCausalLM"] }));
    expect(json.code).toBe("unsupported_model");
    expect(json.message).toContain(
      '"MambaForCausalLM" is not available; we have LlamaForCausalLM, MistralForCausalLM',
    );
    const gguf = failure(() => readGguf({ "general.architecture": "rwkv7" }));
    expect(gguf.message).toContain('"rwkv7" is not available; we have llama, qwen2, qwen3, gemma3');
  });

  test("a file that names no architecture is malformed", () => {
    for (const action of [() => readJson({}), () => readJson({ architectures: [] }), () => readGguf({})]) {
      expect(failure(action).code).toBe("invalid_model_file");
    }
  });
});
