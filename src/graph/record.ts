/**
 * One function per op (those of attention are in `record-attention.ts`): checks the operands' shapes and types
 * against each other, makes the output tensor and appends the op. A failed check is a mistake in a model file, so
 * it is a plain Error.
 */

import type { ActivationPrecision, ProgramBuilder } from "./builder.ts";
import { check, expectInner, expectSameRows, expectVector, expectWeight } from "./operand-checks.ts";
import { describeTensor, rankOf, rowElements, sameLeading, type Tensor } from "./tensor.ts";

export type Activation = "silu" | "gelu_tanh" | "gelu";
const ACTIVATION_CODES: Record<Activation, number> = { silu: 0, gelu_tanh: 1, gelu: 2 };
export const ACTIVATION_PRECISION_CODES: Record<ActivationPrecision, number> = { precise: 0, fast: 1 };

export interface EmbedOptions {
  readonly name: string;
  /** `[vocab, dim]`, any weight type */
  readonly table: Tensor;
  /** i32 `[tokens]` */
  readonly ids: Tensor;
  readonly scale: number;
}

/** Token embeddings: f32 `[tokens, dim]`. */
export function embed(program: ProgramBuilder, { name, table, ids, scale }: EmbedOptions): Tensor {
  check(rankOf(table) === 2, "embed", () => `${describeTensor(table)} must have rank 2`);
  expectWeight("embed", table);
  expectInner("embed", ids, "i32", []);
  const out = program.activation(name, [ids.leading, table.inner[0]!]);
  program.record("embed", { out, table, ids }, { scale });
  return out;
}

export interface RmsNormOptions {
  readonly name: string;
  /** f32 `[tokens, ..., width]` */
  readonly x: Tensor;
  /** f32 `[width]` */
  readonly weight: Tensor;
  readonly epsilon: number;
  /** Added to the weight: 1 where a checkpoint stores the weight less one. */
  readonly weightOffset: number;
  /** Added to the result; shaped like x. */
  readonly residual?: Tensor | undefined;
  /** Where to write; a new activation when not given. May be x or residual. */
  readonly out?: Tensor | undefined;
}

/** Norm of the last dimension: f32, shaped like x. */
export function rmsNorm(program: ProgramBuilder, options: RmsNormOptions): Tensor {
  const { name, x, weight, residual, epsilon } = options;
  expectVector("rms_norm", weight, x.inner.at(-1) ?? 0);
  const out = options.out ?? program.activation(name, [x.leading, ...x.inner]);
  for (const like of [out, ...(residual === undefined ? [] : [residual])]) {
    expectInner("rms_norm", like, "f32", x.inner);
    expectSameRows("rms_norm", like, x);
  }
  program.record("rms_norm", { out, x, weight, residual }, { epsilon, weight_offset: options.weightOffset });
  return out;
}

export interface MatmulOptions {
  readonly name: string;
  /** f32 `[tokens, k]` */
  readonly x: Tensor;
  /** One to three of `[n_i, k]`, any weight type. */
  readonly weights: readonly Tensor[];
  /** f32 `[n_i]`, or undefined, for each weight. */
  readonly biases?: readonly (Tensor | undefined)[] | undefined;
  /** f32 `[tokens, sum n_i]`, added to the result. */
  readonly residual?: Tensor | undefined;
  /** Hold the result past the last op. */
  readonly keep?: boolean;
  /** How exactly x is multiplied; as the program says when not given. */
  readonly activations?: ActivationPrecision;
}

/** Products with each weight side by side: f32 `[tokens, sum n_i]`. */
export function matmul(program: ProgramBuilder, options: MatmulOptions): Tensor {
  const { name, x, weights, biases = [], residual, keep = false } = options;
  const activations = ACTIVATION_PRECISION_CODES[options.activations ?? program.activations];
  check(rankOf(x) === 2, "matmul", () => `${describeTensor(x)} must have rank 2`);
  check(
    weights.length >= 1 && weights.length <= 3,
    "matmul",
    () => `${weights.length} weights; one to three can be fused`,
  );
  check(
    biases.length <= weights.length,
    "matmul",
    () => `${biases.length} biases for ${weights.length} weights`,
  );
  let width = 0;
  weights.forEach((weight, index) => {
    check(
      weight.leading.symbol === undefined,
      "matmul",
      () => `${describeTensor(weight)} must have constant rows`,
    );
    expectInner("matmul", weight, weight.dtype, x.inner);
    expectWeight("matmul", weight);
    const bias = biases[index];
    if (bias !== undefined) expectVector("matmul", bias, weight.leading.plus);
    width += weight.leading.plus;
  });
  if (residual !== undefined) {
    expectInner("matmul", residual, "f32", [width]);
    expectSameRows("matmul", residual, x);
  }
  const out = program.activation(name, [x.leading, width], { keep });
  const [weight0, weight1, weight2] = weights;
  const [bias0, bias1, bias2] = biases;
  const operands = { out, x, weight0, weight1, weight2, bias0, bias1, bias2, residual };
  program.record("matmul", operands, { activations });
  return out;
}

/** `activation(gate) * up` of f32 `[tokens, 2 * width]`: f32 `[tokens, width]`. */
export function gatedMul(
  program: ProgramBuilder,
  {
    name,
    gateUp,
    activation,
  }: { readonly name: string; readonly gateUp: Tensor; readonly activation: Activation },
): Tensor {
  const width = rowElements(gateUp) / 2;
  check(
    rankOf(gateUp) === 2 && Number.isInteger(width),
    "gated_mul",
    () => `${describeTensor(gateUp)} must be [*, 2 * width]`,
  );
  const out = program.activation(name, [gateUp.leading, width]);
  program.record("gated_mul", { out, gate_up: gateUp }, { activation: ACTIVATION_CODES[activation] });
  return out;
}

/** The rows of f32 `[tokens, dim]` named by i32 `[rows]`: f32 `[rows, dim]`. */
export function gatherRows(
  program: ProgramBuilder,
  { name, x, indices }: { readonly name: string; readonly x: Tensor; readonly indices: Tensor },
): Tensor {
  check(
    rankOf(x) === 2 && x.dtype === "f32",
    "gather_rows",
    () => `${describeTensor(x)} must be f32 of rank 2`,
  );
  expectInner("gather_rows", indices, "i32", []);
  const out = program.activation(name, [indices.leading, x.inner[0]!]);
  program.record("gather_rows", { out, x, indices });
  return out;
}

/** `cap * tanh(x / cap)` in place; x: f32 `[rows, width]`. */
export function softCap(
  program: ProgramBuilder,
  { x, cap }: { readonly x: Tensor; readonly cap: number },
): void {
  check(cap > 0, "soft_cap", () => `the cap ${cap} must be positive`);
  program.record("soft_cap", { x }, { cap });
}

export interface SampleOptions {
  /** f32 `[rows, vocab]`, changed in place */
  readonly logits: Tensor;
  /** i32 `[rows, 16]` */
  readonly parameters: Tensor;
  /** i32 `[rows + 1]` */
  readonly adjustmentStarts: Tensor;
  /** i32, f32, f32 `[adjustments]` */
  readonly adjustmentTokens: Tensor;
  readonly adjustmentMultipliers: Tensor;
  readonly adjustmentAddends: Tensor;
  /** i32 and f32 `[rows]` */
  readonly tokens: Tensor;
  readonly logprobs: Tensor;
  /** i32 and f32 `[rows, topCountMax]` */
  readonly topTokens: Tensor;
  readonly topLogprobs: Tensor;
}

/** Chooses a token for each row of logits. */
export function sample(program: ProgramBuilder, options: SampleOptions): void {
  const { logits, parameters, adjustmentStarts, tokens, logprobs, topTokens, topLogprobs } = options;
  for (const rows of [parameters, tokens, logprobs, topTokens, topLogprobs])
    expectSameRows("sample", rows, logits);
  const { symbol, plus } = logits.leading;
  check(
    sameLeading(adjustmentStarts.leading, { symbol, plus: plus + 1 }),
    "sample",
    () => `${describeTensor(adjustmentStarts)} must have one entry more than ${describeTensor(logits)}`,
  );
  expectInner("sample", topLogprobs, "f32", topTokens.inner);
  program.record("sample", {
    tokens,
    logprobs,
    top_tokens: topTokens,
    top_logprobs: topLogprobs,
    logits,
    parameters,
    adjustment_starts: adjustmentStarts,
    adjustment_tokens: options.adjustmentTokens,
    adjustment_multipliers: options.adjustmentMultipliers,
    adjustment_addends: options.adjustmentAddends,
  });
}
