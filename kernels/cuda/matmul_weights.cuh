// Weights as the matrix instructions want them, out of a warp's shared memory. A format is staged in chunks of
// `CHUNK` elements of MATMUL_FEATURES rows, bytes as in the file.
//
// Block formats: `pair(block, step, t)` is the levels of elements 4t to 4t + 3 and 16 + 4t to 16 + 4t + 3 of step
// `step` of a block, the two words that lane t of a row holds; a scale (and minimum) covers SUB elements.
// A level is UNIT of the format's: signed levels of fewer than eight bits stand at the top of their bytes, where their
// sign is a sign without further ado, and UNIT goes into the scales. Sums of such products are as exact as those of the
// levels themselves. A format that has nothing but its line in `dequantise.cuh` works; one that is used much gets a
// `pair` of its own.
#pragma once

#include "dequantise.cuh"
#include "matmul.h"

// Words that begin at multiples of four in formats whose blocks have a multiple of four bytes.
DEVICE u32 load_word(const u8* p) { return *reinterpret_cast<const u32*>(p); }

// From the octets of any format.
template <typename Format>
struct Weights {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* block, u32 step, u32 t) {
    const Levels first = Format::octet(block, step * 4 + t / 2).levels;
    const Levels second = Format::octet(block, step * 4 + 2 + t / 2).levels;
    return t % 2 == 0 ? Levels{first.low, second.low} : Levels{first.high, second.high};
  }
};

// Turns levels from 0 on at the top of bytes into those with a sign, around zero.
static constexpr u32 SIGNS = 0x80808080u;

DEVICE Levels nibble_pair(u32 word) { return {word & 0x0f0f0f0fu, word >> 4 & 0x0f0f0f0fu}; }

DEVICE void add_fifth_pair(Levels& levels, u32 bits, u32 t) {
  levels.low |= spread_bits(bits >> (4 * t)) << 4;
  levels.high |= spread_bits(bits >> (16 + 4 * t)) << 4;
}

template <>
struct Weights<FormatQ4_0> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f / 16;
  static DEVICE Levels pair(const u8* p, u32, u32 t) {
    const u32 word = load_u32(p + 2 + 4 * t);
    return {(word << 4 & 0xf0f0f0f0u) ^ SIGNS, (word & 0xf0f0f0f0u) ^ SIGNS};
  }
};

template <>
struct Weights<FormatQ4_1> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32, u32 t) { return nibble_pair(load_word(p + 4 + 4 * t)); }
};

template <>
struct Weights<FormatQ5_0> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f / 8;
  static DEVICE Levels pair(const u8* p, u32, u32 t) {
    const u32 word = load_u32(p + 6 + 4 * t), tops = load_u32(p + 2);
    return {((word << 3 & 0x78787878u) | spread_bits(tops >> (4 * t)) << 7) ^ SIGNS,
            ((word >> 1 & 0x78787878u) | spread_bits(tops >> (16 + 4 * t)) << 7) ^ SIGNS};
  }
};

template <>
struct Weights<FormatQ5_1> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32, u32 t) {
    Levels levels = nibble_pair(load_word(p + 8 + 4 * t));
    add_fifth_pair(levels, load_word(p + 4), t);
    return levels;
  }
};

template <>
struct Weights<FormatQ8_0> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32, u32 t) { return {load_u32(p + 2 + 4 * t), load_u32(p + 18 + 4 * t)}; }
};

template <>
struct Weights<FormatIQ4NL> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32, u32 t) {
    Levels levels = nibble_pair(load_u32(p + 2 + 4 * t));
    look_up(FormatIQ4NL::table(), levels);
    return levels;
  }
};

template <>
struct Weights<FormatMXFP4> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32, u32 t) {
    Levels levels = nibble_pair(load_bytes(p + 1 + 4 * t));
    look_up(FormatMXFP4::table(), levels);
    return levels;
  }
};

template <>
struct Weights<FormatQ2K> {
  static constexpr u32 SUB = 16;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32 step, u32 t) {
    const u8* q = p + 16 + step / 4 * 32 + 4 * t;
    const u32 shift = step % 4 * 2;
    return {load_word(q) >> shift & 0x03030303u, load_word(q + 16) >> shift & 0x03030303u};
  }
};

template <>
struct Weights<FormatQ3K> {
  static constexpr u32 SUB = 16;
  static constexpr float UNIT = 1.0f / 32;
  static DEVICE Levels pair(const u8* p, u32 step, u32 t) {
    const u8* q = p + 32 + step / 4 * 32 + 4 * t;
    const u8* mask = p + 4 * t;
    const u32 shift = step % 4 * 2;
    return {place(load_u32(q), shift, load_u32(mask), step), place(load_u32(q + 16), shift, load_u32(mask + 16), step)};
  }
  static DEVICE u32 place(u32 word, u32 shift, u32 tops, u32 step) {
    return ((word << (6 - shift) >> 1 & 0x60606060u) | (tops << (7 - step) & SIGNS)) ^ SIGNS;
  }
};

DEVICE Levels nibble_pair64(const u8* p, u32 step, u32 t) {
  const u8* q = p + step / 2 * 32 + 4 * t;
  const u32 shift = step % 2 * 4;
  return {load_word(q) >> shift & 0x0f0f0f0fu, load_word(q + 16) >> shift & 0x0f0f0f0fu};
}

template <>
struct Weights<FormatQ4K> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32 step, u32 t) { return nibble_pair64(p + 16, step, t); }
};

template <>
struct Weights<FormatQ5K> {
  static constexpr u32 SUB = 32;
  static constexpr float UNIT = 1.0f;
  static DEVICE Levels pair(const u8* p, u32 step, u32 t) {
    Levels levels = nibble_pair64(p + 48, step, t);
    const u8* tops = p + 16 + 4 * t;
    levels.low |= (load_word(tops) >> step & 0x01010101u) << 4;
    levels.high |= (load_word(tops + 16) >> step & 0x01010101u) << 4;
    return levels;
  }
};

template <>
struct Weights<FormatQ6K> {
  static constexpr u32 SUB = 16;
  static constexpr float UNIT = 1.0f / 4;
  static DEVICE Levels pair(const u8* p, u32 step, u32 t) {
    const u8* q = p + step / 4 * 64 + step % 2 * 32 + 4 * t;
    const u32 shift = step / 2 % 2 * 4;
    const u8* tops = p + 128 + step / 4 * 32 + 4 * t;
    const u32 top_shift = step % 4 * 2;
    return {place(load_u32(q), shift, load_u32(tops), top_shift), place(load_u32(q + 16), shift, load_u32(tops + 16), top_shift)};
  }
  static DEVICE u32 place(u32 word, u32 shift, u32 tops, u32 top_shift) {
    return ((word >> shift << 2 & 0x3c3c3c3cu) | (tops << (6 - top_shift) & 0xc0c0c0c0u)) ^ SIGNS;
  }
};

// Plain formats: `planes(fragments, chunk, stride, at, lane)` is a[16, 16] from byte column of element `at`, as PLANES
// matrices of bfloat16 whose sum it is, exactly.
struct Fragment {
  u32 words[4];
};

// The high halves of two floats: bfloat16, rounded towards zero. What is left of a float then is exact.
DEVICE u32 take_high(float& x, float& y) {
  const u32 a = bits_of(x), b = bits_of(y);
  x -= float_of(a & 0xffff0000u);
  y -= float_of(b & 0xffff0000u);
  return select_bytes(a, b, 0x7632u);
}

template <>
struct Weights<FormatBF16> {
  static constexpr u32 PLANES = 1;
  static DEVICE void planes(Fragment (&a)[PLANES], const u8* chunk, u32 stride, u32 at, u32 lane) {
    load_matrices(a[0].words, chunk + lane % 16 * stride + at * 2 + lane / 16 * 16);
  }
};

template <>
struct Weights<FormatF16> {
  static constexpr u32 PLANES = 2;
  static DEVICE void planes(Fragment (&a)[PLANES], const u8* chunk, u32 stride, u32 at, u32 lane) {
    u32 raw[4];
    load_matrices(raw, chunk + lane % 16 * stride + at * 2 + lane / 16 * 16);
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      float x = half_to_float(static_cast<u16>(raw[i])), y = half_to_float(static_cast<u16>(raw[i] >> 16));
      a[0].words[i] = take_high(x, y);
      a[1].words[i] = take_high(x, y);
    }
  }
};

template <>
struct Weights<FormatF32> {
  static constexpr u32 PLANES = 3;
  static DEVICE void planes(Fragment (&a)[PLANES], const u8* chunk, u32 stride, u32 at, u32 lane) {
    const u8* corner = chunk + lane / 4 * stride + (at + lane % 4 * 2) * 4;
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const float* two = reinterpret_cast<const float*>(corner + i % 2 * 8 * stride + i / 2 * 32);
      float x = two[0], y = two[1];
#pragma unroll
      for (u32 plane = 0; plane < PLANES; plane++) a[plane].words[i] = take_high(x, y);
    }
  }
};

// How a format is staged.
template <typename Format>
struct Staging {
  static constexpr bool IS_BLOCK = Format::BLOCK_ELEMENTS > 1;
  // A segment, or half of one where that is more than 256 bytes of blocks; 256 bytes of a plain format.
  static constexpr u32 SEGMENT_BYTES = MATMUL_SEGMENT / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
  static constexpr u32 CHUNK = !IS_BLOCK             ? 256 / Format::BLOCK_BYTES
                               : SEGMENT_BYTES > 256 ? MATMUL_SEGMENT / 2
                                                     : MATMUL_SEGMENT;
  static constexpr u32 BYTES = CHUNK / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
  // What rows begin at a multiple of, at least, when they are aligned.
  static constexpr u32 ALIGNMENT = !IS_BLOCK                      ? 16
                                   : Format::BLOCK_BYTES % 4 == 0 ? 4
                                   : Format::BLOCK_BYTES % 2 == 0 ? 2
                                                                  : 1;
  // Pieces of 16 bytes that a chunk lies in, wherever it begins.
  static constexpr u32 PIECES = (16 - ALIGNMENT + BYTES + 15) / 16;
  // An odd number of pieces: words of the same lane of eight rows lie in different banks.
  static constexpr u32 STRIDE = (PIECES | 1) * 16;
  static constexpr u32 STAGES = 2;
};
