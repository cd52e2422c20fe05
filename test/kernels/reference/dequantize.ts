/**
 * What each weight format, and the 8-bit float of caches, means in float64, written from the block layouts of ggml (`ggml-common.h`,
 * `ggml-quants.c`) and independently of our kernels. One function per format fills one block.
 */

import { DTYPES, type DType } from "../../../src/backend/dtype.ts";

/** Writes the elements of the block at byte `at` to `out[to ...]`. */
type Block = (view: DataView, at: number, out: Float64Array, to: number) => void;

const half = (view: DataView, at: number) => view.getFloat16(at, true);

/** 32 elements of two nibbles each 16 bytes: the low ones first. `bits` adds a fifth bit. */
function nibbles(view: DataView, at: number, bits: number, each: (index: number, q: number) => void): void {
  for (let j = 0; j < 16; j++) {
    const byte = view.getUint8(at + j);
    each(j, (byte & 15) | (((bits >>> j) & 1) << 4));
    each(j + 16, (byte >> 4) | (((bits >>> (j + 16)) & 1) << 4));
  }
}

const q4_0: Block = (view, at, out, to) => {
  const d = half(view, at);
  nibbles(view, at + 2, 0, (i, q) => {
    out[to + i] = (q - 8) * d;
  });
};

const q4_1: Block = (view, at, out, to) => {
  const d = half(view, at);
  const m = half(view, at + 2);
  nibbles(view, at + 4, 0, (i, q) => {
    out[to + i] = q * d + m;
  });
};

const q5_0: Block = (view, at, out, to) => {
  const d = half(view, at);
  nibbles(view, at + 6, view.getUint32(at + 2, true), (i, q) => {
    out[to + i] = (q - 16) * d;
  });
};

const q5_1: Block = (view, at, out, to) => {
  const d = half(view, at);
  const m = half(view, at + 2);
  nibbles(view, at + 8, view.getUint32(at + 4, true), (i, q) => {
    out[to + i] = q * d + m;
  });
};

const q8_0: Block = (view, at, out, to) => {
  const d = half(view, at);
  for (let i = 0; i < 32; i++) out[to + i] = view.getInt8(at + 2 + i) * d;
};

const IQ4_NL = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113] as const;

const iq4_nl: Block = (view, at, out, to) => {
  const d = half(view, at);
  nibbles(view, at + 2, 0, (i, q) => {
    out[to + i] = IQ4_NL[q]! * d;
  });
};

/** Magnitudes of a sign, two bits of exponent and one of mantissa (OCP Microscaling Formats, "FP4 E2M1"). */
const E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6] as const;

/** The scale is an exponent with a bias of 127 ("E8M0"); ggml takes 255 for 2^128, not for NaN. */
const mxfp4: Block = (view, at, out, to) => {
  const scale = 2 ** (view.getUint8(at) - 127);
  nibbles(view, at + 1, 0, (i, q) => {
    const value = E2M1[q & 7]! * scale;
    out[to + i] = q > 8 ? -value : value;
  });
};

/** 16 groups of 16, each a 4-bit scale and minimum; two bits per element. */
const q2_k: Block = (view, at, out, to) => {
  const d = half(view, at + 80);
  const minimum = half(view, at + 82);
  for (let i = 0; i < 256; i++) {
    const [part, shift, l] = [i >> 7, (i >> 5) & 3, i & 31];
    const scale = view.getUint8(at + (i >> 4));
    const q = (view.getUint8(at + 16 + part * 32 + l) >> (2 * shift)) & 3;
    out[to + i] = d * (scale & 15) * q - minimum * (scale >> 4);
  }
};

/** 16 groups of 16 with 6-bit signed scales; two low bits and, in the mask, the inverted high one. */
const q3_k: Block = (view, at, out, to) => {
  const d = half(view, at + 108);
  for (let i = 0; i < 256; i++) {
    const [part, shift, l, group] = [i >> 7, (i >> 5) & 3, i & 31, i >> 4];
    const low = group < 8 ? view.getUint8(at + 96 + group) & 15 : view.getUint8(at + 88 + group) >> 4;
    const high = (view.getUint8(at + 104 + (group & 3)) >> (2 * (group >> 2))) & 3;
    const q = (view.getUint8(at + 32 + part * 32 + l) >> (2 * shift)) & 3;
    const bit = (view.getUint8(at + l) >> (i >> 5)) & 1;
    out[to + i] = d * ((low | (high << 4)) - 32) * (bit === 1 ? q : q - 4);
  }
};

/** The 6-bit scale and minimum of the 8 groups of 32 of a Q4_K or Q5_K block, packed in 12 bytes. */
function scaleAndMinimum(view: DataView, at: number, group: number): [number, number] {
  const byte = (index: number) => view.getUint8(at + index);
  if (group < 4) return [byte(group) & 63, byte(group + 4) & 63];
  return [
    (byte(group + 4) & 15) | ((byte(group - 4) >> 6) << 4),
    (byte(group + 4) >> 4) | ((byte(group) >> 6) << 4),
  ];
}

function q45(
  view: DataView,
  at: number,
  fields: { readonly qh?: number; readonly qs: number },
  i: number,
): number {
  const group = i >> 5;
  const [scale, minimum] = scaleAndMinimum(view, at + 4, group);
  const byte = view.getUint8(at + fields.qs + (i >> 6) * 32 + (i & 31));
  const nibble = group & 1 ? byte >> 4 : byte & 15;
  const fifth = fields.qh === undefined ? 0 : (view.getUint8(at + fields.qh + (i & 31)) >> group) & 1;
  return half(view, at) * scale * (nibble + 16 * fifth) - half(view, at + 2) * minimum;
}

const q4_k: Block = (view, at, out, to) => {
  for (let i = 0; i < 256; i++) out[to + i] = q45(view, at, { qs: 16 }, i);
};

const q5_k: Block = (view, at, out, to) => {
  for (let i = 0; i < 256; i++) out[to + i] = q45(view, at, { qh: 16, qs: 48 }, i);
};

/** 16 groups of 16 with 8-bit scales; four low and two high bits. */
const q6_k: Block = (view, at, out, to) => {
  const d = half(view, at + 208);
  for (let i = 0; i < 256; i++) {
    const [part, quarter, l] = [i >> 7, (i >> 5) & 3, i & 31];
    const byte = view.getUint8(at + part * 64 + (quarter & 1) * 32 + l);
    const low = quarter < 2 ? byte & 15 : byte >> 4;
    const high = (view.getUint8(at + 128 + part * 32 + l) >> (2 * quarter)) & 3;
    out[to + i] = d * view.getInt8(at + 192 + (i >> 4)) * ((low | (high << 4)) - 32);
  }
};

/** OCP E4M3 without infinities: the last pattern of each sign is NaN. */
const f8e4m3: Block = (view, at, out, to) => {
  const byte = view.getUint8(at);
  const [exponent, fraction] = [(byte >> 3) & 15, byte & 7];
  const magnitude = exponent === 0 ? fraction / 512 : (1 + fraction / 8) * 2 ** (exponent - 7);
  out[to] = (byte & 0x7f) === 0x7f ? Number.NaN : byte < 128 ? magnitude : -magnitude;
};

const BLOCKS: Record<Exclude<DType, "i32">, Block> = {
  f32: (view, at, out, to) => {
    out[to] = view.getFloat32(at, true);
  },
  f16: (view, at, out, to) => {
    out[to] = half(view, at);
  },
  bf16: (view, at, out, to) => {
    const word = new DataView(new ArrayBuffer(4));
    word.setUint16(2, view.getUint16(at, true), true);
    out[to] = word.getFloat32(0, true);
  },
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  iq4_nl,
  mxfp4,
  f8e4m3,
};

/** All elements of whole blocks. */
export function dequantize(dtype: DType, bytes: Uint8Array): Float64Array {
  if (dtype === "i32") throw new Error("i32 is not a weight type");
  const { blockElements, blockBytes } = DTYPES[dtype];
  const count = bytes.length / blockBytes;
  const out = new Float64Array(count * blockElements);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let block = 0; block < count; block++)
    BLOCKS[dtype](view, block * blockBytes, out, block * blockElements);
  return out;
}
