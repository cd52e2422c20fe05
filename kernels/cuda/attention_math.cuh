// The arithmetic of attention, shared by all its kernels, so that a row's bits are the same in each of them.
//
// Keys are taken in strips at absolute positions, four strips to a range. A strip's scores are weighed relative to
// their own maximum and its values summed from zero; strips are folded into their range in order, and ranges into
// the row in order (the online softmax of Milakov and Gimelshein, 2018, in two levels). A warp works on sixteen
// rows; what a lane holds is the accumulator of mma.m16n8: with g = lane / 4 and t = lane % 4, of every eight
// columns the rows g, g, g + 8, g + 8 in the columns 2t, 2t + 1, 2t, 2t + 1. Exponentials are powers of two.
//
// Precision. Queries and weights are f32 and keep it: a tensor-core product multiplies the parts they are split
// into. f16: two parts each, 22 bits of the largest in the row. bf16: three parts of a query, 24 bits; two of a
// weight, 17 bits, and the denominator sums the weights as rounded, so that an output is off by no more than 2^-18
// of its values.
#pragma once

#include "attention.h"
#include "device.cuh"
#include "math.cuh"

static constexpr u32 NOWHERE = 0xffffffffu;
static constexpr u32 TILE_ROWS = 16;
static constexpr u32 STRIPS = 4;

struct alignas(8) Float2 {
  float x, y;
};

DEVICE float infinity() { return float_of(0x7f800000u); }
// The lowest bit that is set, of a word that is not 0: the exponent of the float that has only this bit.
DEVICE u32 find_first(u32 bits) { return (bits_of(static_cast<float>(bits & (0u - bits))) >> 23) - 127; }
DEVICE u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
DEVICE u32 larger(u32 a, u32 b) { return a > b ? a : b; }
DEVICE float larger(float a, float b) { return b > a ? b : a; }

// Byte offset of 16 bytes of a row in shared memory. Rows follow each other without padding; the pieces of a row
// change places, so that the same piece of eight rows in a row lies in all banks.
template <u32 CHUNKS>
DEVICE u32 swizzled(u32 row, u32 chunk) {
  static_assert(CHUNKS >= 8 ? CHUNKS % 8 == 0 : 8 % CHUNKS == 0, "whole lines of banks");
  constexpr u32 ROWS = CHUNKS >= 8 ? 1 : 8 / CHUNKS;
  constexpr u32 MASK = CHUNKS >= 8 ? 7 : CHUNKS - 1;
  return (row * CHUNKS + (chunk ^ (row / ROWS & MASK))) * 16;
}

// The offset of chunk `a ^ chunk` of a row from that of chunk `a`: places are exclusive ors of row and chunk, so one
// instruction leads from one to the next.
template <u32 CHUNKS>
DEVICE u32 moved(u32 offset, u32 chunk) {
  constexpr u32 MASK = CHUNKS >= 8 ? 7 : CHUNKS - 1;
  return (offset ^ (chunk & MASK) * 16) + (chunk & ~MASK) * 16;
}

// Halves on tensor cores. The rows of queries are brought to a maximum below two, by a power of two.
struct Halves {
  static constexpr u32 BYTES = 2, QUERY_PARTS = 2;
  static constexpr bool SCALED = true;
  static DEVICE u32 pack(float low, float high) { return pack_f16(low, high); }
  static DEVICE float low(u32 pair) { return half_to_float(static_cast<u16>(pair)); }
  static DEVICE float high(u32 pair) { return half_to_float(static_cast<u16>(pair >> 16)); }
  static DEVICE float settle(float weight) { return weight; }
  static DEVICE void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { multiply_f16(d, a, b); }
};

#if CUDA_ARCH >= 80
struct Brains {
  static constexpr u32 BYTES = 2, QUERY_PARTS = 3;
  static constexpr bool SCALED = false;
  static DEVICE u32 pack(float low, float high) { return pack_bf16(low, high); }
  static DEVICE float low(u32 pair) { return float_of(pair << 16); }
  static DEVICE float high(u32 pair) { return float_of(pair & 0xffff0000u); }
  // To the 17 bits that two parts hold, the second of which has a sign of its own.
  static DEVICE float settle(float weight) {
    const u32 bits = bits_of(weight);
    return float_of((bits + 0x3f + (bits >> 7 & 1)) & ~0x7fu);
  }
  static DEVICE void multiply(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { multiply_bf16(d, a, b); }
};
#endif

template <typename Format>
struct TensorCores : Format {
  // Whether a product takes all lanes' weights from shared memory.
  static constexpr bool SHARES_WEIGHTS = false;

  // The first of the two neighbouring dimensions whose sums a lane holds in its `n`th accumulator.
  static DEVICE u32 column(u32 n, u32 t) { return n * 8 + t * 2; }

  // Bytes of sixteen rows of queries.
  template <u32 D>
  static constexpr u32 QUERY_BYTES = Format::QUERY_PARTS * TILE_ROWS * D * 2;

  // Four dimensions of a row of queries.
  template <u32 D>
  static DEVICE void store_query(u8* tile, u32 row, u32 dim, float (&v)[4]) {
#pragma unroll
    for (u32 part = 0; part < Format::QUERY_PARTS; part++) {
      const u32 first = Format::pack(v[0], v[1]), second = Format::pack(v[2], v[3]);
      u32* target = reinterpret_cast<u32*>(tile + part * TILE_ROWS * D * 2 + swizzled<D / 8>(row, dim / 8) + dim % 8 * 2);
      target[0] = first;
      target[1] = second;
      v[0] -= Format::low(first);
      v[1] -= Format::high(first);
      v[2] -= Format::low(second);
      v[3] -= Format::high(second);
    }
  }

  // Products of sixteen queries with a tile of `8 * N` keys.
  template <u32 D, u32 N>
  static DEVICE void score(float (*scores)[4], const u8* queries, const u8* keys, u32 head_dim, u32 lane) {
    constexpr u32 PARTS = Format::QUERY_PARTS, AT_ONCE = N < 4 ? N : 4;
    const u32 query_at = swizzled<D / 8>(lane % 16, lane / 16), key_at = swizzled<D / 8>(lane % 8, lane / 8);
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) scores[n][i] = 0.0f;
#pragma unroll
    for (u32 pair = 0; pair < D / 32; pair++) {
      if (pair * 32 >= head_dim) break;
      u32 q[2][PARTS][4];
#pragma unroll
      for (u32 step = 0; step < 2; step++)
#pragma unroll
        for (u32 part = 0; part < PARTS; part++)
          load_matrices(q[step][part], queries + part * TILE_ROWS * D * 2 + moved<D / 8>(query_at, pair * 4 + step * 2));
#pragma unroll
      for (u32 first = 0; first < N; first += AT_ONCE) {
        u32 k[AT_ONCE][4];
#pragma unroll
        for (u32 n = 0; n < AT_ONCE; n++)
          load_matrices(k[n], keys + (first + n) * 8 * D * 2 + moved<D / 8>(key_at, pair * 4));
#pragma unroll
        for (u32 step = 0; step < 2; step++)
#pragma unroll
          for (u32 part = 0; part < PARTS; part++)
#pragma unroll
            for (u32 n = 0; n < AT_ONCE; n++) {
              const u32 b[2] = {k[n][step * 2], k[n][step * 2 + 1]};
              Format::multiply(scores[first + n], q[step][part], b);
            }
      }
    }
  }

  // Weights of sixteen keys as operands of a product: high parts, then low parts.
  static DEVICE void pack_weights(const float* first, const float* second, u32 (&words)[8]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const float* pair = (i < 2 ? first : second) + i % 2 * 2;
      words[i] = Format::pack(pair[0], pair[1]);
      words[i + 4] = Format::pack(pair[0] - Format::low(words[i]), pair[1] - Format::high(words[i]));
    }
  }

  // Adds weights times values: the `step`th sixteen keys, the `pair`th sixteen dimensions.
  template <u32 CHUNKS>
  static DEVICE void add_values(float (*sums)[4], const u32 (&words)[8], const u32*, const u8* values, u32 step, u32 pair, u32 lane) {
    u32 v[4];
    load_matrices_transposed(v, values + step * 16 * CHUNKS * 16 + moved<CHUNKS>(swizzled<CHUNKS>(lane % 16, lane / 16), pair * 2));
#pragma unroll
    for (u32 part = 0; part < 2; part++) {
      const u32 a[4] = {words[part * 4], words[part * 4 + 1], words[part * 4 + 2], words[part * 4 + 3]};
      const u32 left[2] = {v[0], v[1]}, right[2] = {v[2], v[3]};
      Format::multiply(sums[0], a, left);
      Format::multiply(sums[1], a, right);
    }
  }
};

// f32 caches, and bf16 where no tensor core takes it: fused multiply-adds, element by element in the same places.
struct Singles {
  static constexpr u32 BYTES = 4;
  static DEVICE Float4 four(const u8* memory) { return *reinterpret_cast<const Float4*>(memory); }
  static DEVICE void two(const u8* memory, float& a, float& b) {
    a = reinterpret_cast<const float*>(memory)[0];
    b = reinterpret_cast<const float*>(memory)[1];
  }
};

struct PlainBrains {
  static constexpr u32 BYTES = 2;
  static DEVICE void two(const u8* memory, float& a, float& b) {
    const u32 pair = *reinterpret_cast<const u32*>(memory);
    a = float_of(pair << 16);
    b = float_of(pair & 0xffff0000u);
  }
  static DEVICE Float4 four(const u8* memory) {
    Float4 v;
    two(memory, v.x, v.y);
    two(memory + 4, v.z, v.w);
    return v;
  }
};

template <typename Format>
struct PlainCores : Format {
  static constexpr bool SHARES_WEIGHTS = true, SCALED = false;
  static constexpr u32 LANES = 16 / Format::BYTES;

  static DEVICE u32 column(u32 n, u32 t) { return n * 8 + t * 2; }

  template <u32 D>
  static constexpr u32 QUERY_BYTES = TILE_ROWS * D * 4;

  static DEVICE float settle(float weight) { return weight; }

  template <u32 D>
  static DEVICE void store_query(u8* tile, u32 row, u32 dim, float (&v)[4]) {
    *reinterpret_cast<Float4*>(tile + swizzled<D / 4>(row, dim / 4)) = {v[0], v[1], v[2], v[3]};
  }

  static DEVICE float dot(const Float4& a, const Float4& b, float sum) {
    sum = fused_multiply_add(a.x, b.x, sum);
    sum = fused_multiply_add(a.y, b.y, sum);
    sum = fused_multiply_add(a.z, b.z, sum);
    return fused_multiply_add(a.w, b.w, sum);
  }

  template <u32 D, u32 N>
  static DEVICE void score(float (*scores)[4], const u8* queries, const u8* keys, u32 head_dim, u32 lane) {
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) scores[n][i] = 0.0f;
#pragma unroll 1
    for (u32 dim = 0; dim < head_dim; dim += 4) {
      const Float4 above = *reinterpret_cast<const Float4*>(queries + swizzled<D / 4>(g, dim / 4));
      const Float4 below = *reinterpret_cast<const Float4*>(queries + swizzled<D / 4>(g + 8, dim / 4));
#pragma unroll
      for (u32 n = 0; n < N; n++)
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
          const u32 row = n * 8 + t * 2 + i;
          const Float4 k = Format::four(keys + swizzled<D / LANES>(row, dim / LANES) + dim % LANES * Format::BYTES);
          scores[n][i] = dot(above, k, scores[n][i]);
          scores[n][i + 2] = dot(below, k, scores[n][i + 2]);
        }
    }
  }

  static DEVICE void pack_weights(const float* first, const float* second, u32 (&words)[8]) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      words[i] = bits_of(first[i]);
      words[i + 4] = bits_of(second[i]);
    }
  }

  // `shared` holds the words of all lanes: [2][32][4].
  template <u32 CHUNKS>
  static DEVICE void add_values(float (*sums)[4], const u32 (&)[8], const u32* shared, const u8* values, u32 step, u32 pair, u32 lane) {
    const u32 g = lane / 4, t = lane % 4;
#pragma unroll 4
    for (u32 i = 0; i < 16; i++) {
      const u32* words = shared + i / 8 * 128 + (g * 4 + i % 8 / 2) * 4 + i % 2;
      const float above = float_of(words[0]), below = float_of(words[2]);
#pragma unroll
      for (u32 n = 0; n < 2; n++) {
        const u32 dim = pair * 16 + n * 8 + t * 2;
        float a, b;
        Format::two(values + swizzled<CHUNKS>(step * 16 + i, dim / LANES) + dim % LANES * Format::BYTES, a, b);
        sums[n][0] = fused_multiply_add(above, a, sums[n][0]);
        sums[n][1] = fused_multiply_add(above, b, sums[n][1]);
        sums[n][2] = fused_multiply_add(below, a, sums[n][2]);
        sums[n][3] = fused_multiply_add(below, b, sums[n][3]);
      }
    }
  }
};

// What a lane knows of its two rows, g and g + 8 of the warp's sixteen.
struct LaneRows {
  // The row's place in q and out, and the keys [first, last) that it sees; none for a row that does not exist.
  u32 token[2];
  u32 head[2];
  u32 first[2];
  u32 last[2];
  // What its products are multiplied by.
  float factor[2];
};

// The largest score and the sum of weights of a lane's two rows, as far as keys were seen.
struct Softmax {
  float maximum[2];
  float sum[2];

  DEVICE void clear() {
    maximum[0] = maximum[1] = -infinity();
    sum[0] = sum[1] = 0.0f;
  }

  // Takes in the softmax of later keys; what was summed before and what is added are multiplied by `keep` and `add`.
  DEVICE void fold(const float (&later_maximum)[2], const float (&later_sum)[2], float (&keep)[2], float (&add)[2]) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      const float top = larger(maximum[i], later_maximum[i]);
      const float base = top == -infinity() ? 0.0f : top;
      keep[i] = exp2_fast(maximum[i] - base);
      add[i] = exp2_fast(later_maximum[i] - base);
      maximum[i] = top;
      sum[i] = fused_multiply_add(later_sum[i], add[i], sum[i] * keep[i]);
    }
  }
};

// Sums of one accumulator, old times `keep` plus new times `add`.
DEVICE void fold_sums(float (&sums)[4], const float (&later)[4], const float (&keep)[2], const float (&add)[2]) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums[i] = fused_multiply_add(later[i], add[i / 2], sums[i] * keep[i / 2]);
}

// Turns the products of a strip that begins at key `base` into weights.
template <typename Cores, u32 N>
DEVICE void weigh(const PagedAttention& p, const LaneRows& rows, u32 base, float (&scores)[N][4], Softmax& softmax) {
  const u32 t = lane_index() % 4;
  softmax.clear();
  if (p.soft_cap != 0.0f) {
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) scores[n][i] = tanh_f32(scores[n][i] * rows.factor[i / 2]) * p.soft_cap;
  } else {
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) scores[n][i] *= rows.factor[i / 2];
  }
#pragma unroll
  for (u32 n = 0; n < N; n++)
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      const u32 key = base + n * 8 + t * 2 + i % 2;
      // One comparison: a difference below 0 is a large number.
      const bool seen = key - rows.first[i / 2] < rows.last[i / 2] - rows.first[i / 2];
      scores[n][i] = seen ? scores[n][i] : -infinity();
      softmax.maximum[i / 2] = larger(softmax.maximum[i / 2], scores[n][i]);
    }
  float top[2];
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    softmax.maximum[i] = larger(softmax.maximum[i], shuffle_xor(softmax.maximum[i], 1));
    softmax.maximum[i] = larger(softmax.maximum[i], shuffle_xor(softmax.maximum[i], 2));
    top[i] = softmax.maximum[i] == -infinity() ? 0.0f : softmax.maximum[i];
  }
#pragma unroll
  for (u32 n = 0; n < N; n++)
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      scores[n][i] = Cores::settle(exp2_fast(scores[n][i] - top[i / 2]));
      softmax.sum[i / 2] += scores[n][i];
    }
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    softmax.sum[i] += shuffle_xor(softmax.sum[i], 1);
    softmax.sum[i] += shuffle_xor(softmax.sum[i], 2);
  }
}

// What a row's sums are multiplied by at the end: one over the denominator, the head's sink included.
DEVICE float last_factor(const PagedAttention& p, u32 head, float maximum, float sum) {
  if (p.sinks == nullptr) return 1.0f / sum;
  const float sink = p.sinks[head] * 1.44269504088896341f;
  const float top = larger(maximum, sink);
  const float keep = exp2_fast(maximum - top);
  return keep / fused_multiply_add(sum, keep, exp2_fast(sink - top));
}
