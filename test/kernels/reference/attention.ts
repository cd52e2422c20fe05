/** Causal attention over paged keys and values in float64. */

export interface AttentionCase {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly blockSize: number;
  readonly scale: number;
  readonly slidingWindow: number;
  readonly softCap: number;
  readonly sinks?: Float32Array;
  /** Per sequence: its new tokens and its keys, these included. */
  readonly sequences: readonly { readonly tokens: number; readonly context: number }[];
  /** `[sequences, blocksPerSequence]` */
  readonly blockTables: Int32Array;
  readonly blocksPerSequence: number;
  /** `[tokens, heads, headDim]` */
  readonly q: Float32Array;
  /** `[blocks, kvHeads, blockSize, headDim]`, as the cache's type stores them */
  readonly keys: Float64Array;
  readonly values: Float64Array;
}

/** `[tokens, heads * headDim]` */
export function attend(a: AttentionCase): Float64Array {
  const width = a.heads * a.headDim;
  const out = new Float64Array(a.sequences.reduce((sum, { tokens }) => sum + tokens, 0) * width);
  let row = 0;
  a.sequences.forEach(({ tokens, context }, sequence) => {
    for (let i = 0; i < tokens; i++, row++) {
      for (let head = 0; head < a.heads; head++) {
        const at = row * width + head * a.headDim;
        attendRow(a, sequence, context - tokens + i, head, at, out);
      }
    }
  });
  return out;
}

function attendRow(
  a: AttentionCase,
  sequence: number,
  position: number,
  head: number,
  at: number,
  out: Float64Array,
): void {
  const { headDim, blockSize, softCap } = a;
  const kvHead = Math.floor(head / (a.heads / a.kvHeads));
  const first = a.slidingWindow === 0 ? 0 : Math.max(0, position + 1 - a.slidingWindow);
  const cacheRow = (key: number) => {
    const block = a.blockTables[sequence * a.blocksPerSequence + Math.floor(key / blockSize)]!;
    return ((block * a.kvHeads + kvHead) * blockSize + (key % blockSize)) * headDim;
  };
  const scores: number[] = [];
  for (let key = first; key <= position; key++) {
    const from = cacheRow(key);
    let dot = 0;
    for (let d = 0; d < headDim; d++) dot += a.q[at + d]! * a.keys[from + d]!;
    const score = dot * a.scale;
    scores.push(softCap === 0 ? score : softCap * Math.tanh(score / softCap));
  }
  const sink = a.sinks?.[head];
  const largest = Math.max(...scores, sink ?? Number.NEGATIVE_INFINITY);
  let denominator = sink === undefined ? 0 : Math.exp(sink - largest);
  scores.forEach((score, index) => {
    const weight = Math.exp(score - largest);
    denominator += weight;
    const from = cacheRow(first + index);
    for (let d = 0; d < headDim; d++) out[at + d]! += weight * a.values[from + d]!;
  });
  for (let d = 0; d < headDim; d++) out[at + d]! /= denominator;
}
