/** Sampling by its definition: a full sort in float64, three cuts, one draw. */

export interface SampleRow {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly seedLow: number;
  readonly seedHigh: number;
  readonly position: number;
}

/** Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC '11). */
export function philox(counter: readonly number[], key: readonly number[]): number[] {
  let [c0, c1, c2, c3] = counter.map(BigInt) as [bigint, bigint, bigint, bigint];
  let [k0, k1] = key.map(BigInt) as [bigint, bigint];
  const mask = 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c0;
    const p1 = 0xcd9e8d57n * c2;
    [c0, c1, c2, c3] = [(p1 >> 32n) ^ c1 ^ k0, p1 & mask, (p0 >> 32n) ^ c3 ^ k1, p0 & mask];
    k0 = (k0 + 0x9e3779b9n) & mask;
    k1 = (k1 + 0xbb67ae85n) & mask;
  }
  return [c0, c1, c2, c3].map(Number);
}

/** 53 bits of the first two words. */
function uniform({ seedLow, seedHigh, position }: SampleRow): number {
  const [a, b] = philox([position, 0, 0, 0], [seedLow, seedHigh]) as [number, number];
  return ((a >>> 5) * 2 ** 26 + (b >>> 6)) / 2 ** 53;
}

/** Tokens from the most likely, ties by id; NaN is no token. */
export function ranked(logits: ArrayLike<number>): number[] {
  const ids = Array.from({ length: logits.length }, (_, id) => id).filter((id) => !Number.isNaN(logits[id]));
  return ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
}

export function choose(logits: ArrayLike<number>, row: SampleRow): number {
  const order = ranked(logits);
  if (row.temperature === 0) return order[0]!;
  const weights = order.map((id) => Math.exp((logits[id]! - logits[order[0]!]!) / row.temperature));
  const sum = (count: number) => weights.slice(0, count).reduce((total, weight) => total + weight, 0);
  let kept = row.topK === 0 ? order.length : Math.min(row.topK, order.length);
  if (row.topP < 1) {
    const target = row.topP * sum(kept);
    let before = 0;
    let count = 0;
    while (count < kept && (count === 0 || before < target)) before += weights[count++]!;
    kept = count;
  }
  while (kept > 1 && weights[kept - 1]! < row.minP) kept--;
  const target = uniform(row) * sum(kept);
  let total = 0;
  for (let i = 0; i < kept; i++) {
    total += weights[i]!;
    if (total > target) return order[i]!;
  }
  return order[kept - 1]!;
}

/** Natural log-probabilities. */
export function logProbabilities(logits: ArrayLike<number>): number[] {
  const values = Array.from(logits);
  const largest = Math.max(...values);
  const normalizer = largest + Math.log(values.reduce((sum, value) => sum + Math.exp(value - largest), 0));
  return values.map((value) => value - normalizer);
}
