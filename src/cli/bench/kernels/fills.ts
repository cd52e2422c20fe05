/** What tensors of the kernel benchmark hold: the same in every run. */

export type Fill = (memory: Uint8Array) => void;

const words = (memory: Uint8Array): Int32Array =>
  new Int32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);
const floats = (memory: Uint8Array): Float32Array =>
  new Float32Array(memory.buffer, memory.byteOffset, memory.byteLength / 4);

/** Values of many magnitudes. */
export const wave: Fill = (memory) => {
  const values = floats(memory);
  const pattern = values.subarray(0, WAVE_VALUES);
  for (let index = 0; index < pattern.length; index++) {
    pattern[index] = Math.sin(index * 1.7) * (1 + (index % 7));
  }
  repeat(values, pattern.length);
};

/** Whole numbers below a limit, far from one another. */
export function scattered(limit: number): Fill {
  return (memory) => {
    const values = words(memory);
    for (let index = 0; index < values.length; index++) {
      values[index] = (Math.imul(index + 1, 0x9e3779b1) >>> 0) % limit;
    }
  };
}

/** These whole numbers, from the first on. */
export function numbers(values: ArrayLike<number>): Fill {
  return (memory) => words(memory).set(values);
}

/** 0, step, 2 * step and so on. */
export function multiples(step: number): Fill {
  return (memory) => {
    const values = words(memory);
    for (let index = 0; index < values.length; index++) values[index] = index * step;
  };
}

/** One number everywhere. */
export function all(value: number): Fill {
  return (memory) => void floats(memory).fill(value);
}

/**
 * Bytes from 0x20 to 0x2f at random: weights of whatever type. Any two of them are a half-precision number and a
 * bfloat16, any four an f32, all small and none denormal, so that no scale of a block is out of the ordinary.
 */
export const anyWeights: Fill = (memory) => {
  const pattern = memory.subarray(0, Math.min(memory.length, PATTERN_BYTES));
  let state = 1;
  for (let index = 0; index < pattern.length; index++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    pattern[index] = 0x20 | (state >>> 28);
  }
  repeat(memory, pattern.length);
};

/** Fills an array with its beginning. */
function repeat(values: Uint8Array | Float32Array, length: number): void {
  for (let end = length; end < values.length; end *= 2) values.copyWithin(end, 0, end);
}

/** No multiple of a block's bytes or of a page, so that rows differ. */
const PATTERN_BYTES = 1_000_003;
const WAVE_VALUES = 10_007;
