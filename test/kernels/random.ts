/** Seeded numbers and weights of every type for the kernel tests. The same seed gives the same bytes everywhere. */

import { bytesOfElements, DTYPES, type FileDType } from "../../src/backend/dtype.ts";

export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** A 32-bit linear congruential step (Numerical Recipes); the high bits are the good ones. */
  byte(): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return this.#state >>> 24;
  }

  /** Uniform in [0, 1) with 24 bits. */
  uniform(): number {
    return (this.byte() * 65536 + this.byte() * 256 + this.byte()) / 2 ** 24;
  }

  /** An integer from 0 to `limit - 1`. */
  below(limit: number): number {
    return Math.floor(this.uniform() * limit);
  }

  pick<T>(choices: readonly T[]): T {
    return choices[this.below(choices.length)]!;
  }

  /** f32 values in [-scale, scale), now and then one eight times larger, as activations have. */
  floats(count: number, scale = 1): Float32Array {
    return Float32Array.from({ length: count }, () => {
      const value = (this.uniform() * 2 - 1) * scale;
      return this.byte() < 4 ? value * 8 : value;
    });
  }
}

export type WeightDtype = Exclude<FileDType, "i32">;

/**
 * Byte offsets within a block of what carries its exponent: half-precision scales, or the plain value's high half.
 * None where any bits are a number.
 */
export const HALF_FIELDS: Readonly<Record<WeightDtype, readonly number[]>> = {
  f32: [2],
  f16: [0],
  bf16: [0],
  q4_0: [0],
  q4_1: [0, 2],
  q5_0: [0],
  q5_1: [0, 2],
  q8_0: [0],
  q2_k: [80, 82],
  q3_k: [108],
  q4_k: [0, 2],
  q5_k: [0, 2],
  q6_k: [208],
  iq4_nl: [0],
  mxfp4: [],
};

export const WEIGHT_DTYPES = Object.keys(HALF_FIELDS) as WeightDtype[];

/** An MXFP4 scale of a few hundredths; now and then one that is next to nothing beside the others. */
function randomExponent(random: Random): number {
  return 116 + random.below(7) - (random.byte() < 16 ? random.below(20) : 0);
}

/** The bytes of `rows` rows of `width` weights: any bits, but for scales of a few hundredths, either sign. */
export function randomWeights(
  random: Random,
  dtype: WeightDtype,
  rows: number,
  width: number,
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(rows * bytesOfElements(dtype, width));
  const view = new DataView(bytes.buffer);
  const { blockBytes } = DTYPES[dtype];
  const value = () => (random.uniform() * 2 - 1) * 0.06;
  if (dtype === "f32") {
    for (let at = 0; at < bytes.length; at += 4) view.setFloat32(at, value(), true);
  } else if (dtype === "f16") {
    for (let at = 0; at < bytes.length; at += 2) view.setFloat16(at, value(), true);
  } else if (dtype === "bf16") {
    const word = new DataView(new ArrayBuffer(4));
    for (let at = 0; at < bytes.length; at += 2) {
      word.setFloat32(0, value());
      view.setUint16(at, word.getUint16(0), true);
    }
  } else {
    for (let at = 0; at < bytes.length; at++) bytes[at] = random.byte();
    for (let block = 0; block < bytes.length; block += blockBytes) {
      for (const field of HALF_FIELDS[dtype]) view.setFloat16(block + field, value(), true);
      if (dtype === "mxfp4") bytes[block] = randomExponent(random);
    }
  }
  return bytes;
}
