// Caches of 8-bit floats on tensor cores: the arithmetic of a cache of halves, to which keys and values are widened
// between shared memory and a product. Each of these numbers is a half, so nothing is lost.
//
// A matrix that a lane reads has elements of 16 bits, here pairs of numbers, so a lane gets four neighbours where it
// wants two pairs: of a key the dimensions 4t to 4t + 3, of two keys' values the dimensions 2g and 2g + 1. The order of
// dimensions inside of sixteen is therefore another one in products with keys, which both sides share, and in sums.
#pragma once

#include "attention_math.cuh"
#include "float8.cuh"

struct Float8Cores : TensorCores<Halves> {
  static constexpr u32 BYTES = 1;

  static DEVICE u32 column(u32 n, u32 t) { return n / 2 * 16 + t * 4 + n % 2 * 2; }

  // Four dimensions of a row of queries: the first two as columns 2t of their sixteen, the others as columns 2t + 8.
  template <u32 D>
  static DEVICE void store_query(u8* tile, u32 row, u32 dim, float (&v)[4]) {
#pragma unroll
    for (u32 part = 0; part < QUERY_PARTS; part++) {
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        const u32 pair = pack(v[half * 2], v[half * 2 + 1]);
        u8* target = tile + part * TILE_ROWS * D * 2 + swizzled<D / 8>(row, dim / 16 * 2 + half) + dim % 16;
        *reinterpret_cast<u32*>(target) = pair;
        v[half * 2] -= low(pair);
        v[half * 2 + 1] -= high(pair);
      }
    }
  }

  // Products of sixteen queries with a tile of `8 * N` keys, 64 dimensions at a time.
  template <u32 D, u32 N>
  static DEVICE void score(float (*scores)[4], const u8* queries, const u8* keys, u32 head_dim, u32 lane) {
    constexpr u32 STEPS = 4;
    const u32 query_at = swizzled<D / 8>(lane % 16, lane / 16), key_at = swizzled<D / 16>(lane % 8, lane / 8);
#pragma unroll
    for (u32 n = 0; n < N; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) scores[n][i] = 0.0f;
#pragma unroll
    for (u32 first = 0; first < D / 16; first += STEPS) {
      if (first * 16 >= head_dim) break;
      u32 k[N][STEPS];
#pragma unroll
      for (u32 n = 0; n < N; n++) load_matrices(k[n], keys + n * 8 * D + moved<D / 16>(key_at, first));
#pragma unroll
      for (u32 step = 0; step < STEPS; step++) {
        if ((first + step) * 16 >= head_dim) break;
        u32 q[QUERY_PARTS][4];
#pragma unroll
        for (u32 part = 0; part < QUERY_PARTS; part++)
          load_matrices(q[part], queries + part * TILE_ROWS * D * 2 + moved<D / 8>(query_at, (first + step) * 2));
#pragma unroll
        for (u32 n = 0; n < N; n++) {
          const u32 b[2] = {widen_float8<0, 1>(k[n][step]), widen_float8<2, 3>(k[n][step])};
#pragma unroll
          for (u32 part = 0; part < QUERY_PARTS; part++) multiply(scores[n], q[part], b);
        }
      }
    }
  }

  // Adds weights times values: the `step`th sixteen keys, the `pair`th sixteen dimensions.
  template <u32 CHUNKS>
  static DEVICE void add_values(float (*sums)[4], const u32 (&words)[8], const u32*, const u8* values, u32 step, u32 pair, u32 lane) {
    u32 v[2];
    load_two_matrices_transposed(v, values + step * 16 * CHUNKS * 16 + moved<CHUNKS>(swizzled<CHUNKS>(lane % 16, 0), pair));
    const u32 even[2] = {widen_float8<0, 2>(v[0]), widen_float8<0, 2>(v[1])};
    const u32 odd[2] = {widen_float8<1, 3>(v[0]), widen_float8<1, 3>(v[1])};
    float left[4] = {sums[0][0], sums[1][0], sums[0][2], sums[1][2]};
    float right[4] = {sums[0][1], sums[1][1], sums[0][3], sums[1][3]};
#pragma unroll
    for (u32 part = 0; part < 2; part++) {
      const u32 a[4] = {words[part * 4], words[part * 4 + 1], words[part * 4 + 2], words[part * 4 + 3]};
      multiply(left, a, even);
      multiply(right, a, odd);
    }
#pragma unroll
    for (u32 i = 0; i < 4; i++) {
      sums[0][i] = i % 2 == 0 ? left[i] : right[i - 1];
      sums[1][i] = i % 2 == 0 ? left[i + 1] : right[i];
    }
  }
};
