/**
 * What the engine and a loaded model say to each other: the engine fills the inputs of one step, calls `run`
 * and reads the outputs. The arrays are views of memory the backend owns, allocated once; nothing is copied.
 */

export interface StepLimits {
  /** Most token rows in one step (`--max-num-batched-tokens`). */
  readonly tokensMax: number;
  /** Most sequences in one step (`--max-seqs`). */
  readonly sequencesMax: number;
  /** Most rows of logits in one step; at least `sequencesMax`. */
  readonly rowsMax: number;
  /** Most entries of the sampling adjustment list in one step, all rows together. */
  readonly adjustmentsMax: number;
  /** Most alternatives a row can report. */
  readonly topLogprobsMax: number;
  /** Tokens in a KV block. */
  readonly blockSize: number;
  /** Blocks in the KV pool. Block 0 is the null block: never written with live data, never handed out. */
  readonly blockCount: number;
  /** Columns of the block table. */
  readonly blocksPerSequenceMax: number;
  readonly vocabularySize: number;
  /** Most tokens, prompt and generated, of one sequence. */
  readonly contextLength: number;
}

export interface StepInputs {
  /** `[tokens]` i32 */
  readonly tokenIds: Int32Array;
  /** `[tokens]` i32 */
  readonly positions: Int32Array;
  /** `[tokens]` i32: block * blockSize + offset, or -1 to store nothing */
  readonly slotMapping: Int32Array;
  /** `[sequences + 1]` i32: first token row of each sequence; the last entry is the number of tokens */
  readonly sequenceStarts: Int32Array;
  /** `[sequences]` i32: keys visible to the last row of each sequence, this step's included */
  readonly contextLengths: Int32Array;
  /** `[sequences, blocksPerSequenceMax]` i32 */
  readonly blockTables: Int32Array;
  /** `[rows]` i32: token rows whose logits are wanted */
  readonly logitRows: Int32Array;
  /** `[rows, SAMPLING_PARAMETER_WORDS]` i32 */
  readonly samplingParameters: Int32Array;
  /** The same memory as `samplingParameters`, as f32. */
  readonly samplingParametersF32: Float32Array;
  /** `[rows + 1]` i32 */
  readonly adjustmentStarts: Int32Array;
  readonly adjustmentTokens: Int32Array;
  readonly adjustmentMultipliers: Float32Array;
  readonly adjustmentAddends: Float32Array;
}

export interface StepOutputs {
  /** `[rows]` i32 */
  readonly tokens: Int32Array;
  /** `[rows]` f32 */
  readonly logprobs: Float32Array;
  /** `[rows, topLogprobsMax]` i32 */
  readonly topTokens: Int32Array;
  /** `[rows, topLogprobsMax]` f32 */
  readonly topLogprobs: Float32Array;
  /** `[rows, width]` f32: the hidden states after the last norm, which the logits were made of */
  readonly hidden: Float32Array;
}

/** Runs steps of one model. The engine's tests implement it with a fake; `LoadedModel` is the real one. */
export interface ModelRunner {
  readonly limits: StepLimits;
  readonly inputs: StepInputs;
  readonly outputs: StepOutputs;
  /** Runs one step over the first `tokens`, `sequences` and `rows` entries of the inputs; blocks until done. */
  run(tokens: number, sequences: number, rows: number): void;
  close(): void;
}
