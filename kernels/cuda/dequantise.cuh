// Every weight format of a file (`src/backend/dtype.ts`), read where it lies. A format decodes "octets": eight
// consecutive elements that begin at a multiple of eight. All eight share one scale and one minimum, so that a
// product can work on their integer levels:
//
//   value = scale * level + minimum        (minimum is 0 in formats without one: HAS_MINIMUM false)
//
// Block layouts are those of GGML. Blocks lie at even addresses and no better, so words are made of halves; those of
// MXFP4, of 17 bytes, lie anywhere.
#pragma once

#include "device.cuh"

// Eight signed bytes, the first in the lowest byte of `low`.
struct Levels {
  u32 low, high;
};

struct Octet {
  Levels levels;
  float scale;
  float minimum;
};

DEVICE u32 load_u16(const u8* p) { return *reinterpret_cast<const u16*>(p); }
DEVICE u32 load_u32(const u8* p) { return load_u16(p) | load_u16(p + 2) << 16; }
DEVICE float load_half(const u8* p) { return half_to_float(static_cast<u16>(load_u16(p))); }

// Each byte minus `amount`, no borrow between them; bytes are below 128.
DEVICE u32 subtract_bytes(u32 bytes, u32 amount) {
  return ((bytes | 0x80808080u) - amount * 0x01010101u) ^ 0x80808080u;
}

// Bit i of the low four bits to bit 0 of byte i.
DEVICE u32 spread_bits(u32 bits) { return (bits & 15) * 0x00204081u & 0x01010101u; }

// Bytes of a table, four to a word.
struct Table16 {
  u32 words[4];
};

// `table[index]` for each of four bytes below 16.
DEVICE u32 look_up(const Table16& table, u32 indices) {
  // The low three bits of each as the selectors of one instruction, which knows eight bytes.
  const u32 pairs = (indices & 0x07070707u) * 0x0011u >> 4 & 0x00ff00ffu;
  const u32 selectors = (pairs | pairs >> 8) & 0xffffu;
  const u32 lower = select_bytes(table.words[0], table.words[1], selectors);
  const u32 upper = select_bytes(table.words[2], table.words[3], selectors);
  const u32 is_upper = (indices >> 3 & 0x01010101u) * 0xffu;
  return (lower & ~is_upper) | (upper & is_upper);
}

DEVICE void look_up(const Table16& table, Levels& levels) {
  levels.low = look_up(table, levels.low);
  levels.high = look_up(table, levels.high);
}

DEVICE i32 level_at(const Levels& levels, u32 index) {
  return static_cast<i8>((index < 4 ? levels.low : levels.high) >> (8 * (index % 4)));
}

// Plain formats: one element at a time.
struct FormatF32 {
  static constexpr u32 BLOCK_ELEMENTS = 1, BLOCK_BYTES = 4;
  static DEVICE float value(const u8* p) { return *reinterpret_cast<const float*>(p); }
};
struct FormatF16 {
  static constexpr u32 BLOCK_ELEMENTS = 1, BLOCK_BYTES = 2;
  static DEVICE float value(const u8* p) { return half_to_float(*reinterpret_cast<const u16*>(p)); }
};
struct FormatBF16 {
  static constexpr u32 BLOCK_ELEMENTS = 1, BLOCK_BYTES = 2;
  static DEVICE float value(const u8* p) { return float_of(static_cast<u32>(*reinterpret_cast<const u16*>(p)) << 16); }
};

// The nibbles of octet `o` of 32 elements whose low nibbles come first.
DEVICE Levels nibbles32(const u8* p, u32 o) {
  const u8* q = p + o % 2 * 8;
  const u32 shift = o / 2 * 4;
  return {load_u32(q) >> shift & 0x0f0f0f0fu, load_u32(q + 4) >> shift & 0x0f0f0f0fu};
}

// Bit 4 of each level from a word with one bit per element.
DEVICE void add_fifth_bits(Levels& levels, u32 bits, u32 o) {
  levels.low |= spread_bits(bits >> (8 * o)) << 4;
  levels.high |= spread_bits(bits >> (8 * o + 4)) << 4;
}

DEVICE void subtract(Levels& levels, u32 amount) {
  levels.low = subtract_bytes(levels.low, amount);
  levels.high = subtract_bytes(levels.high, amount);
}

// d, qs[16]
struct FormatQ4_0 {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 18;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Octet octet(const u8* p, u32 o) {
    Octet out = {nibbles32(p + 2, o), load_half(p), 0.0f};
    subtract(out.levels, 8);
    return out;
  }
};

// d, m, qs[16]
struct FormatQ4_1 {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 20;
  static constexpr bool HAS_MINIMUM = true;
  static DEVICE Octet octet(const u8* p, u32 o) { return {nibbles32(p + 4, o), load_half(p), load_half(p + 2)}; }
};

// d, qh[4], qs[16]
struct FormatQ5_0 {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 22;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Octet octet(const u8* p, u32 o) {
    Octet out = {nibbles32(p + 6, o), load_half(p), 0.0f};
    add_fifth_bits(out.levels, load_u32(p + 2), o);
    subtract(out.levels, 16);
    return out;
  }
};

// d, m, qh[4], qs[16]
struct FormatQ5_1 {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 24;
  static constexpr bool HAS_MINIMUM = true;
  static DEVICE Octet octet(const u8* p, u32 o) {
    Octet out = {nibbles32(p + 8, o), load_half(p), load_half(p + 2)};
    add_fifth_bits(out.levels, load_u32(p + 4), o);
    return out;
  }
};

// d, qs[32] signed
struct FormatQ8_0 {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 34;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Octet octet(const u8* p, u32 o) {
    const u8* q = p + 2 + 8 * o;
    return {{load_u32(q), load_u32(q + 4)}, load_half(p), 0.0f};
  }
};

// d, qs[16], which stand for -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113
struct FormatIQ4NL {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 18;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Table16 table() { return {{0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u}}; }
  static DEVICE Octet octet(const u8* p, u32 o) {
    Octet out = {nibbles32(p + 2, o), load_half(p), 0.0f};
    look_up(table(), out.levels);
    return out;
  }
};

DEVICE u32 load_bytes(const u8* p) { return p[0] | p[1] << 8 | p[2] << 16 | static_cast<u32>(p[3]) << 24; }

// Exponent, qs[16]: values 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives, here doubled, times 2^(exponent - 127).
struct FormatMXFP4 {
  static constexpr u32 BLOCK_ELEMENTS = 32, BLOCK_BYTES = 17;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Table16 table() { return {{0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu}}; }
  static DEVICE Octet octet(const u8* p, u32 o) {
    const u8* q = p + 1 + o % 2 * 8;
    const u32 shift = o / 2 * 4;
    // Half the scale; the two smallest are subnormal.
    const u32 exponent = p[0];
    const u32 bits = exponent < 2 ? 0x00200000u << exponent : (exponent - 1) << 23;
    Octet out = {{load_bytes(q) >> shift & 0x0f0f0f0fu, load_bytes(q + 4) >> shift & 0x0f0f0f0fu}, float_of(bits), 0.0f};
    look_up(table(), out.levels);
    return out;
  }
};

// Two bits per element: 128 elements share 32 bytes, the first 32 of them in the lowest bits.
DEVICE Levels pairs128(const u8* p, u32 o) {
  const u8* q = p + o / 16 * 32 + o % 4 * 8;
  const u32 shift = o / 4 % 4 * 2;
  return {load_u32(q) >> shift & 0x03030303u, load_u32(q + 4) >> shift & 0x03030303u};
}

// scales[16] (low nibble scale, high nibble minimum), qs[64], d, dmin
struct FormatQ2K {
  static constexpr u32 BLOCK_ELEMENTS = 256, BLOCK_BYTES = 84;
  static constexpr bool HAS_MINIMUM = true;
  static DEVICE Octet octet(const u8* p, u32 o) {
    const u32 s = p[o / 2];
    return {pairs128(p + 16, o), load_half(p + 80) * static_cast<float>(s & 15),
            -load_half(p + 82) * static_cast<float>(s >> 4)};
  }
};

// hmask[32], qs[64], scales[12] (16 six-bit values), d
struct FormatQ3K {
  static constexpr u32 BLOCK_ELEMENTS = 256, BLOCK_BYTES = 110;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Octet octet(const u8* p, u32 o) {
    const u32 i = o / 2;
    const u32 low = p[96 + i % 8] >> (i / 8 * 4) & 15;
    const u32 high = p[104 + i % 4] >> (i / 4 * 2) & 3;
    const i32 scale = static_cast<i32>(low | high << 4) - 32;
    Octet out = {pairs128(p + 32, o), load_half(p + 108) * static_cast<float>(scale), 0.0f};
    const u8* mask = p + o % 4 * 8;
    out.levels.low |= (load_u32(mask) >> (o / 4) & 0x01010101u) << 2;
    out.levels.high |= (load_u32(mask + 4) >> (o / 4) & 0x01010101u) << 2;
    subtract(out.levels, 4);
    return out;
  }
};

// Scale and minimum `i` of eight of six bits each. p: d, dmin, twelve bytes.
struct SubScale {
  float scale, minimum;
};
DEVICE SubScale sub_scale(const u8* p, u32 i) {
  const u8* s = p + 4;
  u32 scale, minimum;
  if (i < 4) {
    scale = s[i] & 63;
    minimum = s[i + 4] & 63;
  } else {
    scale = (s[i + 4] & 15) | (s[i - 4] >> 6) << 4;
    minimum = s[i + 4] >> 4 | (s[i] >> 6) << 4;
  }
  return {load_half(p) * static_cast<float>(scale), -load_half(p + 2) * static_cast<float>(minimum)};
}

// Four bits per element: 64 elements share 32 bytes, the first 32 of them in the low nibbles.
DEVICE Levels nibbles64(const u8* p, u32 o) {
  const u8* q = p + o / 8 * 32 + o % 4 * 8;
  const u32 shift = o / 4 % 2 * 4;
  return {load_u32(q) >> shift & 0x0f0f0f0fu, load_u32(q + 4) >> shift & 0x0f0f0f0fu};
}

// d, dmin, scales[12], qs[128]
struct FormatQ4K {
  static constexpr u32 BLOCK_ELEMENTS = 256, BLOCK_BYTES = 144;
  static constexpr bool HAS_MINIMUM = true;
  static DEVICE Octet octet(const u8* p, u32 o) {
    const SubScale s = sub_scale(p, o / 4);
    return {nibbles64(p + 16, o), s.scale, s.minimum};
  }
};

// d, dmin, scales[12], qh[32], qs[128]
struct FormatQ5K {
  static constexpr u32 BLOCK_ELEMENTS = 256, BLOCK_BYTES = 176;
  static constexpr bool HAS_MINIMUM = true;
  static DEVICE Octet octet(const u8* p, u32 o) {
    const SubScale s = sub_scale(p, o / 4);
    Octet out = {nibbles64(p + 48, o), s.scale, s.minimum};
    const u8* tops = p + 16 + o % 4 * 8;
    out.levels.low |= (load_u32(tops) >> (o / 4) & 0x01010101u) << 4;
    out.levels.high |= (load_u32(tops + 4) >> (o / 4) & 0x01010101u) << 4;
    return out;
  }
};

// ql[128], qh[64], scales[16] signed, d. 128 elements share 64 bytes of ql: the first 64 in the low nibbles.
struct FormatQ6K {
  static constexpr u32 BLOCK_ELEMENTS = 256, BLOCK_BYTES = 210;
  static constexpr bool HAS_MINIMUM = false;
  static DEVICE Octet octet(const u8* p, u32 o) {
    const u8* q = p + o / 16 * 64 + o % 8 * 8;
    const u32 shift = o / 8 % 2 * 4;
    Octet out;
    out.levels = {load_u32(q) >> shift & 0x0f0f0f0fu, load_u32(q + 4) >> shift & 0x0f0f0f0fu};
    const u8* tops = p + 128 + o / 16 * 32 + o % 4 * 8;
    const u32 top_shift = o / 4 % 4 * 2;
    out.levels.low |= (load_u32(tops) >> top_shift & 0x03030303u) << 4;
    out.levels.high |= (load_u32(tops + 4) >> top_shift & 0x03030303u) << 4;
    subtract(out.levels, 32);
    out.scale = load_half(p + 208) * static_cast<float>(static_cast<i8>(p[192 + o / 2]));
    out.minimum = 0.0f;
    return out;
  }
};

// `FOR_EACH_BLOCK_FORMAT(M)` is M(name in kernel names, type) for every block-quantised format.
#define FOR_EACH_BLOCK_FORMAT(M) \
  M(q4_0, FormatQ4_0)            \
  M(q4_1, FormatQ4_1)            \
  M(q5_0, FormatQ5_0)            \
  M(q5_1, FormatQ5_1)            \
  M(q8_0, FormatQ8_0)            \
  M(q2_k, FormatQ2K)             \
  M(q3_k, FormatQ3K)             \
  M(q4_k, FormatQ4K)             \
  M(q5_k, FormatQ5K)             \
  M(q6_k, FormatQ6K)             \
  M(iq4_nl, FormatIQ4NL)         \
  M(mxfp4, FormatMXFP4)

#define FOR_EACH_PLAIN_FORMAT(M) \
  M(f32, FormatF32)              \
  M(f16, FormatF16)              \
  M(bf16, FormatBF16)
