/**
 * The op table: the single source of every op's code, operands and attributes. `generate-zig.ts` writes the
 * kernels' copy (`kernels/abi/ops.gen.zig`) from it; a test fails when the two differ.
 *
 * Shapes are written `[leading, inner...]`, row-major. A leading dimension may be symbolic (tokens, rows ...).
 * Unless said otherwise activations are f32, and an activation operand may be a view: its leading stride may be
 * longer than its row. All arithmetic accumulates in f32 in an order that does not depend on the batch or on
 * the number of threads.
 */

export type Access = "read" | "write" | "readwrite";

export interface OperandSpec {
  readonly name: string;
  readonly access: Access;
  readonly optional?: true;
}

export interface AttributeSpec {
  readonly name: string;
  readonly type: "i32" | "f32";
}

export interface OpSpec {
  readonly code: number;
  readonly operands: readonly OperandSpec[];
  readonly attributes: readonly AttributeSpec[];
}

const read = (name: string): OperandSpec => ({ name, access: "read" });
const write = (name: string): OperandSpec => ({ name, access: "write" });
const readwrite = (name: string): OperandSpec => ({ name, access: "readwrite" });
const maybe = (name: string): OperandSpec => ({ name, access: "read", optional: true });
const f32 = (name: string): AttributeSpec => ({ name, type: "f32" });
const i32 = (name: string): AttributeSpec => ({ name, type: "i32" });

export const OPS = {
  /** `out[tokens, dim] = scale * table[ids[token]]`. table: `[vocab, dim]` of any weight dtype; ids: i32. */
  embed: { code: 1, operands: [write("out"), read("table"), read("ids")], attributes: [f32("scale")] },

  /**
   * Root-mean-square norm of the last dimension: `out = x / rms(x) * (weight + weight_offset) (+ residual)`.
   * x, out, residual: `[tokens, ..., width]`; weight: f32 `[width]`. out may be x or residual.
   */
  rms_norm: {
    code: 2,
    operands: [write("out"), read("x"), read("weight"), maybe("residual")],
    attributes: [f32("epsilon"), f32("weight_offset")],
  },

  /**
   * `out[tokens, n0+n1+n2] = concat_i(x[tokens, k] @ weight_i[n_i, k]^T + bias_i) (+ residual)`.
   * One to three weights of any dtype share one pass over x (fused QKV, gate/up). Rows of block-quantised
   * weights are multiplied with x quantised to integers of two bytes, rounded to nearest even, that share a scale: on
   * the CPU in groups of 256 (scale = largest magnitude / 32512), on a GPU of 128 (largest magnitude / 16256). f32, f16
   * and bf16 weights are multiplied with f32 x, which a unit for bfloat16 takes in three parts that add up to it, as it
   * does f16 weights in two. Programs made with `repack` round the scales of q4_0, q4_1 and q5_0 to 11 or 12 bits of the
   * largest of 256 elements, for a tile unit those of q5_1, q8_0 and iq4_nl to 15; and of q4_1 what integer 8 of a block
   * stands for to a half float, from which its integers are counted.
   * activations: 0 as said (`precise`); 1 (`fast`) lets a backend round x to what its units multiply fastest: the
   * CPU keeps the upper 8 bits beside block-quantised weights, but for groups whose largest magnitude is
   * above 8 times the root of their mean square, and on its tile unit one bfloat16 beside bf16 and f16 weights; a GPU
   * rounds x to 16-bit floats in products of many rows. Sums stay exact or in f32.
   * bias_i: f32 `[n_i]`. out may be residual.
   */
  matmul: {
    code: 3,
    operands: [
      write("out"),
      read("x"),
      read("weight0"),
      maybe("weight1"),
      maybe("weight2"),
      maybe("bias0"),
      maybe("bias1"),
      maybe("bias2"),
      maybe("residual"),
    ],
    attributes: [i32("activations")],
  },

  /**
   * Cosines and sines of the step's positions: `out[tokens, 2, pairs]`, cosines first, both times `scale`.
   * positions: i32 `[tokens]`; inverse_frequencies: f32 `[pairs]`.
   */
  rope_table: {
    code: 4,
    operands: [write("out"), read("positions"), read("inverse_frequencies")],
    attributes: [f32("scale")],
  },

  /**
   * Rotates the first `2 * pairs` of each head in place. x: `[tokens, heads, head_dim]`; table as above.
   * interleaved = 1 pairs (2i, 2i+1) (GGUF llama); 0 pairs (i, i + pairs) (GPT-NeoX, Hugging Face).
   */
  rope: {
    code: 5,
    operands: [readwrite("x"), read("table")],
    attributes: [i32("interleaved")],
  },

  /**
   * Stores keys and values at their slots. k, v: `[tokens, kv_heads, head_dim]`; slot_mapping: i32 `[tokens]`,
   * `slot = block * block_size + offset`, -1 writes nothing; caches: f32, f16, bf16 or f8e4m3
   * `[blocks, kv_heads, block_size, head_dim]`, rounded to nearest even. f8e4m3 has no scale: what is beyond 448
   * becomes 448 of its sign, NaN 0x7f.
   */
  kv_write: {
    code: 6,
    operands: [read("k"), read("v"), read("slot_mapping"), readwrite("k_cache"), readwrite("v_cache")],
    attributes: [],
  },

  /**
   * Causal attention of a ragged batch over paged keys and values. out: `[tokens, heads * head_dim]`;
   * q: `[tokens, heads, head_dim]`; block_tables: i32 `[seqs, blocks_per_sequence]`; sequence_starts: i32
   * `[seqs + 1]`, the first token row of each sequence; context_lengths: i32 `[seqs]`, keys of each sequence
   * including this step's, so its last row attends to `context_length` keys. A row at position p sees keys
   * `max(0, p + 1 - sliding_window) .. p`; sliding_window 0 is none. soft_cap 0 is none, else
   * `score = soft_cap * tanh(score / soft_cap)`. sinks: f32 `[heads]`, one extra logit per head.
   */
  paged_attention: {
    code: 7,
    operands: [
      write("out"),
      read("q"),
      read("k_cache"),
      read("v_cache"),
      read("block_tables"),
      read("sequence_starts"),
      read("context_lengths"),
      maybe("sinks"),
    ],
    attributes: [f32("scale"), i32("sliding_window"), f32("soft_cap")],
  },

  /**
   * `out[tokens, width] = activation(gate_up[:, :width]) * gate_up[:, width:]`.
   * activation: 0 SiLU, 1 GELU with tanh approximation, 2 exact GELU.
   */
  gated_mul: { code: 8, operands: [write("out"), read("gate_up")], attributes: [i32("activation")] },

  /** `out[rows, dim] = x[indices[row]]`. x: `[tokens, dim]`; indices: i32 `[rows]`. */
  gather_rows: { code: 9, operands: [write("out"), read("x"), read("indices")], attributes: [] },

  /** `x = cap * tanh(x / cap)` in place. */
  soft_cap: { code: 10, operands: [readwrite("x")], attributes: [f32("cap")] },

  /**
   * Chooses a token for each row of logits `[rows, vocab]` (changed in place by the adjustments).
   * parameters: i32 `[rows, 16]`, see `SAMPLING_PARAMETER`. Row r owns the adjustments
   * `adjustment_starts[r] .. adjustment_starts[r + 1]`, applied in list order to the logit l of their token:
   * `l = (l > 0 ? l / multiplier : l * multiplier) + addend`.
   * tokens: i32 `[rows]`, -1 for a row whose logits are all NaN or minus infinity; logprobs: f32 `[rows]`; top_tokens, top_logprobs: `[rows, top_count_max]`, unused
   * entries -1 and 0. Log-probabilities are natural and of the model's own distribution: before adjustments,
   * temperature and filters.
   */
  sample: {
    code: 11,
    operands: [
      write("tokens"),
      write("logprobs"),
      write("top_tokens"),
      write("top_logprobs"),
      readwrite("logits"),
      read("parameters"),
      read("adjustment_starts"),
      read("adjustment_tokens"),
      read("adjustment_multipliers"),
      read("adjustment_addends"),
    ],
    attributes: [],
  },
} as const satisfies Record<string, OpSpec>;

export type OpName = keyof typeof OPS;

/** Index of each field in a row of the sample op's parameters; floats are stored by their bits. */
export const SAMPLING_PARAMETER = {
  temperature: 0, // f32; 0 is greedy
  top_k: 1, // i32; 0 is off
  top_p: 2, // f32; 1 is off
  min_p: 3, // f32; 0 is off
  seed_low: 4, // u32
  seed_high: 5, // u32
  position: 6, // u32; the counter of the RNG: index of the drawn token in its sequence
  logprob_count: 7, // i32; -1 no log-probabilities, 0 the chosen token's, n also the n most likely
  forced_token: 8, // i32; -1 none, else this token is "chosen" (log-probabilities of a prompt)
} as const;

export const SAMPLING_PARAMETER_WORDS = 16;

/** Limits of the encoded program; the kernels refuse more. */
export const OPERAND_COUNT_MAX = 14;
export const ATTRIBUTE_COUNT_MAX = 14;
