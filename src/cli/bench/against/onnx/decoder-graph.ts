/**
 * A decoder as ONNX Runtime computes it fastest on a processor: 4-bit matrices with 8-bit activations (MatMulNBits,
 * accuracy level 4), norms that take the residual sum along, attention that rotates and writes keys and values where
 * they stay (GroupQueryAttention), logits of the last token alone.
 */

import type { ModelConfig, RopeKind } from "../../../../models/config.ts";
import type { LayerTensorName } from "../../../../models/tensor-names.ts";
import { type ExternalData, OnnxGraph, RUNTIME_DOMAIN } from "./onnx-graph.ts";

/** Elements that share a scale. */
export const BLOCK_ELEMENTS = 32;
/** What products take activations as: 8 bits are fastest, f32 tells whether the graph is right. */
export type Activations = "int8" | "f32";
const ACCURACY_LEVELS = { f32: 1, int8: 4 } as const satisfies Record<Activations, number>;

/** A matrix `[rows, columns]` in blocks of 4 bits: `[rows, blocks, 16]` bytes and f32 `[rows, blocks]`. */
export interface Int4Matrix {
  readonly rows: number;
  readonly columns: number;
  readonly data: ExternalData;
  readonly scales: ExternalData;
}

/** Cosines and sines, f32 `[positions, pairs]`. */
export interface Rotation {
  readonly positions: number;
  readonly pairs: number;
  readonly cosines: ExternalData;
  readonly sines: ExternalData;
}

/** Matrices that one product computes, one below the other. */
export type MatrixName =
  | "query_key_value"
  | "query"
  | "key"
  | "value"
  | "attention_output"
  | "gate"
  | "up"
  | "down";

/** What the graph takes from the model file. */
export interface DecoderWeights {
  readonly embedding: Int4Matrix;
  /** The embedding itself where they are tied. */
  readonly output: Int4Matrix;
  readonly outputNorm: Float32Array;
  readonly rotations: Readonly<Partial<Record<RopeKind, Rotation>>>;
  matrix(layer: number, name: MatrixName): Int4Matrix;
  /** A norm's weights or a product's biases; undefined where the model has none. */
  vector(layer: number, name: LayerTensorName): Float32Array | undefined;
}

/** The model file's bytes. */
export function decoderGraph(
  config: ModelConfig,
  weights: DecoderWeights,
  activations: Activations,
): Uint8Array {
  return new DecoderGraph(config, weights, activations).record();
}

class DecoderGraph {
  readonly #graph = new OnnxGraph();
  readonly #config: ModelConfig;
  readonly #weights: DecoderWeights;
  readonly #accuracyLevel: number;

  constructor(config: ModelConfig, weights: DecoderWeights, activations: Activations) {
    this.#config = config;
    this.#weights = weights;
    this.#accuracyLevel = ACCURACY_LEVELS[activations];
  }

  record(): Uint8Array {
    const { layers, vocabularySize } = this.#config;
    this.#graph.input("input_ids", "i64", ["batch", "rows"]);
    this.#graph.input("seqlens_k", "i32", ["batch"]);
    this.#graph.input("total_sequence_length", "i32", []);
    for (const [kind, rotation] of Object.entries(this.#weights.rotations)) {
      const { positions, pairs, cosines, sines } = rotation;
      this.#graph.external(`cosines.${kind}`, "f32", [positions, pairs], cosines);
      this.#graph.external(`sines.${kind}`, "f32", [positions, pairs], sines);
    }
    let stream = this.#embed();
    let normed = this.#norm("layers.0.normed", stream, this.#vector(0, "attention_norm"));
    layers.forEach((_, layer) => {
      const attended = this.#normIfAny(layer, "attention_output_norm", this.#attention(layer, normed));
      const middle = this.#addAndNorm(
        `layers.${layer}.middle`,
        attended,
        stream,
        this.#vector(layer, "feed_forward_norm"),
      );
      const fed = this.#normIfAny(layer, "feed_forward_output_norm", this.#feedForward(layer, middle.normed));
      const next =
        layer + 1 < layers.length ? this.#vector(layer + 1, "attention_norm") : this.#weights.outputNorm;
      ({ normed, sum: stream } = this.#addAndNorm(`layers.${layer}.end`, fed, middle.sum, next));
    });
    const last = this.#graph.constant("last", "i64", [], new Uint8Array(BigInt64Array.of(-1n).buffer));
    this.#graph.node("Gather", { inputs: [normed, last], outputs: ["last.normed"], integers: { axis: 1 } });
    this.#logits("last.normed");
    this.#graph.output("logits", "f32", ["batch", vocabularySize]);
    return this.#graph.finish("decoder");
  }

  #logits(x: string): void {
    const { logitSoftCap: cap } = this.#config;
    if (cap === 0) {
      this.#multiply("logits", x, this.#weights.output);
      return;
    }
    const plain = this.#multiply("logits.plain", x, this.#weights.output);
    const [down, up] = [1 / cap, cap].map((factor, index) =>
      this.#floats(`logits.factor.${index}`, Float32Array.of(factor)),
    ) as [string, string];
    this.#graph.node("Mul", { inputs: [plain, down], outputs: ["logits.small"] });
    this.#graph.node("Tanh", { inputs: ["logits.small"], outputs: ["logits.bent"] });
    this.#graph.node("Mul", { inputs: ["logits.bent", up], outputs: ["logits"] });
  }

  /** The table's rows of the tokens, in the same bytes that the output matrix may be made of. */
  #embed(): string {
    const { rows, columns, data, scales } = this.#weights.embedding;
    const { embeddingScale } = this.#config;
    const blocks = columns / BLOCK_ELEMENTS;
    this.#graph.external("embedding.data", "u8", [rows, columns / 2], data);
    this.#graph.external("embedding.scales", "f32", [rows, blocks], scales);
    this.#graph.node("GatherBlockQuantized", {
      domain: RUNTIME_DOMAIN,
      inputs: ["embedding.data", "input_ids", "embedding.scales"],
      outputs: ["embedded"],
      integers: { bits: 4, block_size: BLOCK_ELEMENTS, gather_axis: 0, quantize_axis: 1 },
    });
    if (embeddingScale === 1) return "embedded";
    const scale = this.#floats("embedding.scale", Float32Array.of(embeddingScale));
    this.#graph.node("Mul", { inputs: ["embedded", scale], outputs: ["embedded.scaled"] });
    return "embedded.scaled";
  }

  #attention(layer: number, x: string): string {
    const { heads, keyValueHeads, headDim, queryScale, attentionSoftCap, ropePairing } = this.#config;
    const { slidingWindow, rope } = this.#config.layers[layer]!;
    const label = (name: string): string => `layers.${layer}.${name}`;
    const [pastKey, pastValue, presentKey, presentValue] = ["past", "past", "present", "present"].map(
      (when, index) => `${when}.${layer}.${index % 2 === 0 ? "key" : "value"}`,
    ) as [string, string, string, string];
    const cache = ["batch", keyValueHeads, "context", headDim];
    for (const name of [pastKey, pastValue]) this.#graph.input(name, "f32", cache);
    for (const name of [presentKey, presentValue]) this.#graph.output(name, "f32", cache);
    this.#graph.node("GroupQueryAttention", {
      domain: RUNTIME_DOMAIN,
      inputs: [
        ...this.#queryKeyValue(layer, x),
        ...[pastKey, pastValue, "seqlens_k", "total_sequence_length", `cosines.${rope}`, `sines.${rope}`],
      ],
      outputs: [label("attended"), presentKey, presentValue],
      integers: {
        num_heads: heads,
        kv_num_heads: keyValueHeads,
        do_rotary: 1,
        rotary_interleaved: ropePairing === "interleaved" ? 1 : 0,
        local_window_size: slidingWindow === 0 ? -1 : slidingWindow,
      },
      floats: { scale: queryScale, softcap: attentionSoftCap },
    });
    const output = this.#weights.matrix(layer, "attention_output");
    return this.#multiply(label("attention"), label("attended"), output, [
      this.#weights.vector(layer, "attention_output_bias"),
    ]);
  }

  /** One product for all three, unless the heads are normalised between it and their rotation. */
  #queryKeyValue(layer: number, x: string): readonly string[] {
    const { weights, label } = { weights: this.#weights, label: (name: string) => `layers.${layer}.${name}` };
    if (weights.vector(layer, "query_norm") === undefined) {
      const biases = (["query_bias", "key_bias", "value_bias"] as const).map((name) =>
        weights.vector(layer, name),
      );
      return [this.#multiply(label("qkv"), x, weights.matrix(layer, "query_key_value"), biases), "", ""];
    }
    const { heads, keyValueHeads } = this.#config;
    const product = (name: "query" | "key" | "value"): string =>
      this.#multiply(label(name), x, weights.matrix(layer, name), [weights.vector(layer, `${name}_bias`)]);
    const query = this.#normHeads(product("query"), heads, this.#vector(layer, "query_norm"));
    const key = this.#normHeads(product("key"), keyValueHeads, this.#vector(layer, "key_norm"));
    return [query, key, product("value")];
  }

  #feedForward(layer: number, x: string): string {
    const label = (name: string): string => `layers.${layer}.${name}`;
    const product = (name: "gate" | "up" | "down", of: string): string =>
      this.#multiply(label(name), of, this.#weights.matrix(layer, name), [
        this.#weights.vector(layer, `${name}_bias`),
      ]);
    const activated = this.#activate(label("activated"), product("gate", x));
    this.#graph.node("Mul", { inputs: [activated, product("up", x)], outputs: [label("gated")] });
    return product("down", label("gated"));
  }

  #activate(name: string, x: string): string {
    const io = { domain: RUNTIME_DOMAIN, inputs: [x], outputs: [name] } as const;
    const { activation } = this.#config;
    if (activation === "silu") this.#graph.node("QuickGelu", { ...io, floats: { alpha: 1 } });
    else this.#graph.node(activation === "gelu_tanh" ? "FastGelu" : "Gelu", io);
    return name;
  }

  #multiply(
    name: string,
    x: string,
    { rows, columns, data, scales }: Int4Matrix,
    biases: readonly (Float32Array | undefined)[] = [],
  ): string {
    const blocks = columns / BLOCK_ELEMENTS;
    const parts = biases.filter((bias) => bias !== undefined);
    const bias = parts.length === 0 ? [] : ["", "", this.#floats(`${name}.bias`, concatenated(parts))];
    this.#graph.node("MatMulNBits", {
      domain: RUNTIME_DOMAIN,
      inputs: [
        x,
        this.#graph.external(`${name}.data`, "u8", [rows, blocks, BLOCK_ELEMENTS / 2], data),
        this.#graph.external(`${name}.scales`, "f32", [rows, blocks], scales),
        ...bias,
      ],
      outputs: [name],
      integers: {
        N: rows,
        K: columns,
        bits: 4,
        block_size: BLOCK_ELEMENTS,
        accuracy_level: this.#accuracyLevel,
      },
    });
    return name;
  }

  #norm(name: string, x: string, weight: Float32Array): string {
    this.#graph.node("SimplifiedLayerNormalization", {
      inputs: [x, this.#floats(`${name}.weight`, weight)],
      outputs: [name],
      integers: { axis: -1, stash_type: 1 },
      floats: { epsilon: this.#config.normEpsilon },
    });
    return name;
  }

  #normIfAny(layer: number, tensor: LayerTensorName, x: string): string {
    const weight = this.#weights.vector(layer, tensor);
    return weight === undefined ? x : this.#norm(`${x}.normed`, x, weight);
  }

  /** Each head by itself. */
  #normHeads(x: string, heads: number, weight: Float32Array): string {
    const sizes = (name: string, values: readonly number[]): string =>
      this.#graph.constant(
        `${x}.${name}`,
        "i64",
        [values.length],
        new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
      );
    const apart = sizes("apart", [0, 0, heads, this.#config.headDim]);
    this.#graph.node("Reshape", { inputs: [x, apart], outputs: [`${x}.heads`] });
    const normed = this.#norm(`${x}.normed`, `${x}.heads`, weight);
    const together = sizes("together", [0, 0, heads * this.#config.headDim]);
    this.#graph.node("Reshape", { inputs: [normed, together], outputs: [`${x}.row`] });
    return `${x}.row`;
  }

  /** The residual stream with `x` added to it, and its norm. */
  #addAndNorm(
    name: string,
    x: string,
    stream: string,
    weight: Float32Array,
  ): { normed: string; sum: string } {
    const [normed, sum] = [`${name}.normed`, `${name}.sum`];
    this.#graph.node("SkipSimplifiedLayerNormalization", {
      domain: RUNTIME_DOMAIN,
      inputs: [x, stream, this.#floats(`${name}.weight`, weight)],
      outputs: [normed, "", "", sum],
      floats: { epsilon: this.#config.normEpsilon },
    });
    return { normed, sum };
  }

  #vector(layer: number, name: LayerTensorName): Float32Array {
    const vector = this.#weights.vector(layer, name);
    if (vector === undefined) throw new Error(`layer ${layer} has no ${name}`);
    return vector;
  }

  #floats(name: string, values: Float32Array): string {
    const bytes = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
    return this.#graph.constant(name, "f32", [values.length], bytes);
  }
}

function concatenated(parts: readonly Float32Array[]): Float32Array {
  const result = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const part of parts) {
    result.set(part, at);
    at += part.length;
  }
  return result;
}
