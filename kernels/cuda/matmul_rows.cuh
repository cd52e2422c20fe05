// Rows of x as the matrix instructions want them, in shared memory or prepared by `matmul_prepare_<kind>`. A lane finds
// the words of a step in one load of 16 bytes per plane.
//
// Beside block formats a row is integers of 15 bits in groups of MATMUL_GROUP that share a scale; an integer is
// 128 * high + low, two signed bytes. So products and their sums are exact, and the same in every order.
// Beside plain formats a value is the sum of three bfloat16, exactly. Fast products have one, rounded.
#pragma once

#include "matmul_weights.cuh"

// How rows are prepared: for block formats and for plain ones, and rounded for plain formats and for block formats.
enum Form { INTEGERS, PARTS, ROUNDED, QUADS };

// Some tokens, `columns` of them side by side; lines of sums and scales are made even.
struct RowTile {
  // [step][plane][column][t] of 16 bytes. Block formats, high and low bytes in one plane: the high bytes of elements
  // 4t.. and 16 + 4t.., then the low ones. Plain formats: elements 2t, 2t + 1; 2t + 8, 2t + 9; 2t + 16 ..; 2t + 24 ..
  // Rounded for block formats: elements 4t to 4t + 3, 16 + 4t to 16 + 4t + 3, as a lane has their levels.
  u8* fragments;
  // Integers only. [group][column]
  float* scales;
  // [step][column][half]: sums of the integers of 16 elements.
  float* sums;
  u32 columns;

  DEVICE u32 pairs() const { return (columns + 1) / 2; }
};

template <Form form>
struct Rows {
  static constexpr u32 PLANES = form == PARTS ? 3 : 1;

  static DEVICE RowTile tile(u8* memory, u32 steps, u32 columns) {
    RowTile tile = {memory, nullptr, nullptr, columns};
    if (form == INTEGERS) {
      tile.sums = reinterpret_cast<float*>(memory + steps * 64 * columns);
      tile.scales = tile.sums + steps * 4 * tile.pairs();
    }
    return tile;
  }

  static DEVICE u32* words(const RowTile& tile, u32 step, u32 plane, u32 column, u32 t) {
    return reinterpret_cast<u32*>(tile.fragments + (((step * PLANES + plane) * tile.columns + column) * 4 + t) * 16);
  }
};

// Four elements of a row of k from `at`; zero past its end.
DEVICE Float4 load_four(const float* x, u32 at, u32 k, bool vectors) {
  Float4 v = {0.0f, 0.0f, 0.0f, 0.0f};
  if (vectors) {
    if (at < k) v = *reinterpret_cast<const Float4*>(x + at);
  } else {
    if (at < k) v.x = x[at];
    if (at + 1 < k) v.y = x[at + 1];
    if (at + 2 < k) v.z = x[at + 2];
    if (at + 3 < k) v.w = x[at + 3];
  }
  return v;
}

DEVICE u32 magnitude(float x) { return bits_of(x) & 0x7fffffffu; }
DEVICE u32 larger(u32 a, u32 b) { return a > b ? a : b; }

// The low bytes of four words.
DEVICE u32 pack_bytes(i32 a, i32 b, i32 c, i32 d) {
  const u32 low = select_bytes(static_cast<u32>(a), static_cast<u32>(b), 0x0040u);
  const u32 high = select_bytes(static_cast<u32>(c), static_cast<u32>(d), 0x0040u);
  return select_bytes(low, high, 0x5410u);
}

// v is 128 * high_byte + low_byte, the latter from -64 to 63.
DEVICE i32 high_byte(i32 v) { return (v + 64) >> 7; }
DEVICE i32 low_byte(i32 v) { return ((v + 64) & 127) - 64; }

// A warp turns elements 128 * `span` to 128 * `span` + 127 of a row into column `column` of a tile.
DEVICE void prepare_integers(const RowTile& tile, u32 column, const float* x, u32 k, u32 steps, u32 span,
                             bool vectors) {
  static constexpr float INTEGER_MAX = 127.0f * 128.0f;
  const u32 lane = lane_index();
  const u32 step = span * 4 + lane / 8;
  const Float4 v = load_four(x, step * MATMUL_STEP + lane % 8 * 4, k, vectors);
  // Magnitudes compare as their bits do, and above them all lie infinity and NaN, which so reach the scale.
  u32 largest = larger(larger(magnitude(v.x), magnitude(v.y)), larger(magnitude(v.z), magnitude(v.w)));
#pragma unroll
  for (u32 distance = 1; distance < MATMUL_GROUP / 4; distance *= 2)
    largest = larger(largest, shuffle_xor(largest, distance));
  const bool usable = largest > 0 && largest < 0x7f800000u;
  const float inverse = usable ? INTEGER_MAX / float_of(largest) : 0.0f;
  const i32 a = round_to_i32(v.x * inverse), b = round_to_i32(v.y * inverse);
  const i32 c = round_to_i32(v.z * inverse), d = round_to_i32(v.w * inverse);
  i32 sum = a + b + c + d;
  sum += shuffle_xor(sum, 1);
  sum += shuffle_xor(sum, 2);
  if (step >= steps) return;
  const u32 half = lane / 4 % 2;
  u32* words = Rows<INTEGERS>::words(tile, step, 0, column, lane % 4);
  words[half] = pack_bytes(high_byte(a), high_byte(b), high_byte(c), high_byte(d));
  words[2 + half] = pack_bytes(low_byte(a), low_byte(b), low_byte(c), low_byte(d));
  if (lane % 4 == 0) tile.sums[(step * 2 * tile.pairs() + column) * 2 + half] = static_cast<float>(sum);
  if (lane % (MATMUL_GROUP / 4) == 0)
    tile.scales[step / (MATMUL_GROUP / MATMUL_STEP) * 2 * tile.pairs() + column] = float_of(largest) / INTEGER_MAX;
}

DEVICE void prepare_parts(const RowTile& tile, u32 column, const float* x, u32 k, u32 steps, u32 span, bool vectors) {
  const u32 lane = lane_index();
  const u32 step = span * 4 + lane / 8;
  if (step >= steps) return;
  Float4 v = load_four(x, step * MATMUL_STEP + lane % 8 * 4, k, vectors);
  const u32 t = lane % 2 * 2;
#pragma unroll
  for (u32 plane = 0; plane < 3; plane++) {
    u32* words = Rows<PARTS>::words(tile, step, plane, column, t);
    words[lane % 8 / 2] = take_high(v.x, v.y);
    words[4 + lane % 8 / 2] = take_high(v.z, v.w);
  }
}

DEVICE void prepare_rounded(const RowTile& tile, u32 column, const float* x, u32 k, u32 steps, u32 span, bool vectors) {
  const u32 lane = lane_index();
  const u32 step = span * 4 + lane / 8;
  if (step >= steps) return;
  const Float4 v = load_four(x, step * MATMUL_STEP + lane % 8 * 4, k, vectors);
  u32* words = Rows<ROUNDED>::words(tile, step, 0, column, lane % 2 * 2);
  words[lane % 8 / 2] = pack_bf16(v.x, v.y);
  words[4 + lane % 8 / 2] = pack_bf16(v.z, v.w);
}

DEVICE void prepare_quads(const RowTile& tile, u32 column, const float* x, u32 k, u32 steps, u32 span, bool vectors) {
  const u32 lane = lane_index();
  const u32 step = span * 4 + lane / 8;
  if (step >= steps) return;
  const Float4 v = load_four(x, step * MATMUL_STEP + lane % 8 * 4, k, vectors);
  u32* words = Rows<QUADS>::words(tile, step, 0, column, lane % 4) + lane % 8 / 4 * 2;
  words[0] = pack_bf16(v.x, v.y);
  words[1] = pack_bf16(v.z, v.w);
}

template <Form form>
DEVICE void prepare(const RowTile& tile, u32 column, const float* x, u32 k, u32 steps, u32 span, bool vectors) {
  if (form == INTEGERS) prepare_integers(tile, column, x, k, steps, span, vectors);
  if (form == PARTS) prepare_parts(tile, column, x, k, steps, span, vectors);
  if (form == ROUNDED) prepare_rounded(tile, column, x, k, steps, span, vectors);
  if (form == QUADS) prepare_quads(tile, column, x, k, steps, span, vectors);
}
