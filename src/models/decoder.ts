/**
 * The decoder-only transformer with rotary positions and a gated feed-forward network, which the Llama, Qwen
 * and Gemma families share. A family states by `DecoderBlock` where its blocks differ; numbers come from the
 * configuration. Formats of weights are nobody's business here.
 */

import { embed, gatedMul, gatherRows, matmul, rmsNorm, softCap } from "../graph/record.ts";
import { kvWrite, pagedAttention, rope, ropeTable } from "../graph/record-attention.ts";
import type { Tensor } from "../graph/tensor.ts";
import type { ModelConfig, RopeKind } from "./config.ts";
import type { ModelRecording, RecordedRows } from "./family.ts";
import type { LayerTensorName, TensorRequirement } from "./tensor-names.ts";

export interface DecoderBlock {
  /** Each head of queries and keys is normalised before it is rotated. */
  readonly queryKeyNorm: boolean;
  /** Attention and feed-forward network are normalised again before they are added to the residual stream. */
  readonly outputNorms: boolean;
}

/** The tensors that a model of such blocks needs. */
export function decoderTensors(config: ModelConfig, block: DecoderBlock): TensorRequirement[] {
  const { width, feedForwardWidth, headDim, vocabularySize, biases } = config;
  const queries = config.heads * headDim;
  const keys = config.keyValueHeads * headDim;
  const layer: [LayerTensorName, number[], boolean][] = [
    ["attention_norm", [width], true],
    ["query", [queries, width], true],
    ["key", [keys, width], true],
    ["value", [keys, width], true],
    ["query_bias", [queries], biases.queryKeyValue],
    ["key_bias", [keys], biases.queryKeyValue],
    ["value_bias", [keys], biases.queryKeyValue],
    ["query_norm", [headDim], block.queryKeyNorm],
    ["key_norm", [headDim], block.queryKeyNorm],
    ["attention_output", [width, queries], true],
    ["attention_output_bias", [width], biases.attentionOutput],
    ["attention_output_norm", [width], block.outputNorms],
    ["feed_forward_norm", [width], true],
    ["gate", [feedForwardWidth, width], true],
    ["gate_bias", [feedForwardWidth], biases.feedForward],
    ["up", [feedForwardWidth, width], true],
    ["up_bias", [feedForwardWidth], biases.feedForward],
    ["down", [width, feedForwardWidth], true],
    ["down_bias", [width], biases.feedForward],
    ["feed_forward_output_norm", [width], block.outputNorms],
  ];
  const needed = layer.filter(([, , isNeeded]) => isNeeded);
  return [
    { name: "embedding", shape: [vocabularySize, width] },
    ...config.layers.flatMap((_, index) => needed.map(([name, shape]) => ({ name, layer: index, shape }))),
    { name: "output_norm", shape: [width] },
    ...(config.tiedEmbeddings ? [] : [{ name: "output" as const, shape: [vocabularySize, width] }]),
  ];
}

/** Records the model from token ids to hidden states and logits. */
export function recordDecoder(recording: ModelRecording, block: DecoderBlock): RecordedRows {
  const { program, config, inputs } = recording;
  const table = recording.weight("embedding");
  let stream = embed(program, {
    name: "embedded",
    table,
    ids: inputs.tokenIds,
    scale: config.embeddingScale,
  });
  const rotations = recordRotations(recording);
  config.layers.forEach((layer, index) => {
    let attended = recordAttention(recording, block, index, stream, rotations[layer.rope]!);
    if (index === config.layers.length - 1) {
      // From here on a token only matters to itself, so the rows without logits are left out.
      attended = gatherRows(program, { name: "attended.rows", x: attended, indices: inputs.logitRows });
      stream = gatherRows(program, { name: "stream.rows", x: stream, indices: inputs.logitRows });
    }
    stream = recordAttentionOutput(recording, block, index, attended, stream);
    stream = recordFeedForward(recording, block, index, stream);
  });
  const hidden = program.activation("hidden", [inputs.logitRows.leading, config.width], { keep: true });
  recordNorm(recording, "output_norm", stream, recording.weight("output_norm"), { out: hidden });
  const output = config.tiedEmbeddings ? table : recording.weight("output");
  const logits = matmul(program, { name: "logits", x: hidden, weights: [output], keep: true });
  if (config.logitSoftCap > 0) softCap(program, { x: logits, cap: config.logitSoftCap });
  return { hidden, logits };
}

/** Cosines and sines, once per step for each rotation that some layer uses. */
function recordRotations({
  program,
  config,
  inputs,
  rotation,
}: ModelRecording): Partial<Record<RopeKind, Tensor>> {
  const result: Partial<Record<RopeKind, Tensor>> = {};
  const isShared = config.ropes.local === config.ropes.global;
  for (const { rope: kind } of config.layers) {
    if (result[kind] !== undefined) continue;
    const other = result[kind === "local" ? "global" : "local"];
    if (isShared && other !== undefined) {
      result[kind] = other;
      continue;
    }
    const { inverseFrequencies, attentionFactor } = rotation(kind);
    result[kind] = ropeTable(program, {
      name: `rotation.${kind}`,
      positions: inputs.positions,
      inverseFrequencies,
      scale: attentionFactor,
    });
  }
  return result;
}

function recordNorm(
  { program, config }: ModelRecording,
  name: string,
  x: Tensor,
  weight: Tensor,
  to: { readonly out?: Tensor; readonly residual?: Tensor } = {},
): Tensor {
  const { normEpsilon: epsilon, normWeightOffset: weightOffset } = config;
  return rmsNorm(program, { name, x, weight, epsilon, weightOffset, ...to });
}

/** Attention of one layer up to, but without, its output projection: `[tokens, heads * headDim]`. */
function recordAttention(
  recording: ModelRecording,
  block: DecoderBlock,
  layer: number,
  stream: Tensor,
  rotation: Tensor,
): Tensor {
  const { program, config, inputs } = recording;
  const { heads, keyValueHeads, headDim } = config;
  const weight = (name: LayerTensorName): Tensor => recording.layerWeight(layer, name);
  const label = (name: string): string => `layers.${layer}.${name}`;
  const [queries, keys] = [heads * headDim, keyValueHeads * headDim];

  const normed = recordNorm(recording, label("attention_norm"), stream, weight("attention_norm"));
  const qkv = matmul(program, {
    name: label("qkv"),
    x: normed,
    weights: [weight("query"), weight("key"), weight("value")],
    biases: config.biases.queryKeyValue
      ? [weight("query_bias"), weight("key_bias"), weight("value_bias")]
      : [],
  });
  const q = program.heads(program.columns(qkv, 0, queries), heads, headDim, label("q"));
  const k = program.heads(program.columns(qkv, queries, keys), keyValueHeads, headDim, label("k"));
  const v = program.heads(program.columns(qkv, queries + keys, keys), keyValueHeads, headDim, label("v"));
  if (block.queryKeyNorm) {
    recordNorm(recording, label("query_norm"), q, weight("query_norm"), { out: q });
    recordNorm(recording, label("key_norm"), k, weight("key_norm"), { out: k });
  }
  // Queries and keys lie side by side, so one op rotates the heads of both.
  const rotated = program.heads(
    program.columns(qkv, 0, queries + keys),
    heads + keyValueHeads,
    headDim,
    label("qk"),
  );
  rope(program, { x: rotated, table: rotation, interleaved: config.ropePairing === "interleaved" });
  const cache = recording.caches[layer]!;
  kvWrite(program, { k, v, slotMapping: inputs.slotMapping, cache });
  return pagedAttention(program, {
    name: label("attended"),
    q,
    cache,
    blockTables: inputs.blockTables,
    sequenceStarts: inputs.sequenceStarts,
    contextLengths: inputs.contextLengths,
    scale: config.queryScale,
    slidingWindow: config.layers[layer]!.slidingWindow,
    softCap: config.attentionSoftCap,
  });
}

/** Projects what was attended to and adds it to the residual stream. */
function recordAttentionOutput(
  recording: ModelRecording,
  block: DecoderBlock,
  layer: number,
  attended: Tensor,
  stream: Tensor,
): Tensor {
  const { program, config } = recording;
  const name = `layers.${layer}.attention`;
  const weights = [recording.layerWeight(layer, "attention_output")];
  const biases = config.biases.attentionOutput ? [recording.layerWeight(layer, "attention_output_bias")] : [];
  if (!block.outputNorms) return matmul(program, { name, x: attended, weights, biases, residual: stream });
  const projected = matmul(program, { name: `${name}.projected`, x: attended, weights, biases });
  const norm = recording.layerWeight(layer, "attention_output_norm");
  return recordNorm(recording, name, projected, norm, { residual: stream });
}

/** The gated feed-forward network of one layer, added to the residual stream. */
function recordFeedForward(
  recording: ModelRecording,
  block: DecoderBlock,
  layer: number,
  stream: Tensor,
): Tensor {
  const { program, config } = recording;
  const weight = (name: LayerTensorName): Tensor => recording.layerWeight(layer, name);
  const name = `layers.${layer}.feed_forward`;
  const hasBias = config.biases.feedForward;
  const normed = recordNorm(recording, `${name}.norm`, stream, weight("feed_forward_norm"));
  const gateUp = matmul(program, {
    name: `${name}.gate_up`,
    x: normed,
    weights: [weight("gate"), weight("up")],
    biases: hasBias ? [weight("gate_bias"), weight("up_bias")] : [],
  });
  const gated = gatedMul(program, { name: `${name}.gated`, gateUp, activation: config.activation });
  const down = { x: gated, weights: [weight("down")], biases: hasBias ? [weight("down_bias")] : [] };
  if (!block.outputNorms) return matmul(program, { name, ...down, residual: stream });
  const projected = matmul(program, { name: `${name}.projected`, ...down });
  return recordNorm(recording, name, projected, weight("feed_forward_output_norm"), { residual: stream });
}
