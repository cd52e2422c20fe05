/** Matrix products in float64, with activations as they are or quantised as the matmul op defines it. */

const BLOCK = 32;
const INTEGER_MAX = 127 * 128;

/** Rounds to the nearest integer, ties to even; for magnitudes below 2^22. */
function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const fraction = value - floor;
  if (fraction !== 0.5) return fraction < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Rows of x as the op sees them beside block-quantised weights: 15-bit integers in blocks of 32, f32 scales. */
export function quantizeActivations(x: Float32Array, width: number): Float64Array {
  const out = new Float64Array(x.length);
  for (let row = 0; row < x.length; row += width) {
    for (let start = row; start < row + width; start += BLOCK) {
      const end = Math.min(start + BLOCK, row + width);
      const largest = x.subarray(start, end).reduce((most, value) => Math.max(most, Math.abs(value)), 0);
      const inverse = largest > 0 ? Math.fround(INTEGER_MAX / largest) : 0;
      const scale = Math.fround(largest / INTEGER_MAX);
      for (let i = start; i < end; i++) out[i] = roundToEven(Math.fround(x[i]! * inverse)) * scale;
    }
  }
  return out;
}

/** `x[rows, k] @ weights[n, k]^T`: `[rows, n]`. */
export function multiply(x: Float64Array, weights: Float64Array, k: number): Float64Array {
  const rows = x.length / k;
  const n = weights.length / k;
  const out = new Float64Array(rows * n);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < n; column++) {
      let sum = 0;
      for (let i = 0; i < k; i++) sum += x[row * k + i]! * weights[column * k + i]!;
      out[row * n + column] = sum;
    }
  }
  return out;
}

/** Per row: the largest magnitude of a row of weights times the sum of magnitudes of x, which bounds rounding. */
export function productBounds(x: Float64Array, weights: Float64Array, k: number): Float64Array {
  const rows = x.length / k;
  const n = weights.length / k;
  const sums = Float64Array.from({ length: rows }, (_, row) =>
    x.subarray(row * k, (row + 1) * k).reduce((sum, value) => sum + Math.abs(value), 0),
  );
  const largest = Float64Array.from({ length: n }, (_, column) =>
    weights
      .subarray(column * k, (column + 1) * k)
      .reduce((most, value) => Math.max(most, Math.abs(value)), 0),
  );
  return Float64Array.from({ length: rows * n }, (_, i) => sums[Math.floor(i / n)]! * largest[i % n]!);
}
