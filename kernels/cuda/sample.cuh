// What sampling computes with: keys that order the tokens, weights as integers, the generator, and reductions over a
// block of SAMPLE_THREADS.
//
// Weights are e^((logit - greatest) / temperature), at most 1, in units of 2^-44. Sums of integers are the same in any
// order, so they are made by atomics, by any number of blocks, and still never depend on the batch or on timing. A
// weight loses less than 2^-44 of the greatest one: a whole vocabulary of 2^18 tokens at most 2^-26, and 2^18 weights
// of 1 add up to 2^62.
#pragma once

#include "math.cuh"
#include "sample.h"

static constexpr u64 NO_KEY = ~u64(0);
static constexpr u32 WEIGHT_BITS = 44;
static constexpr u32 WARPS = SAMPLE_THREADS / WARP;
static constexpr u32 PER_THREAD = SAMPLE_PART / SAMPLE_THREADS;
// Bins of equal width in the logarithm of the weight: weights below 2^-44 = e^-30.5 are none.
static constexpr float BINS_PER_UNIT = 16.0f;
static_assert(SAMPLE_BINS == SAMPLE_THREADS, "a thread has a bin");
static_assert(SAMPLE_BINS > WEIGHT_BITS * 0.6931472f * BINS_PER_UNIT, "every weight has a bin");

DEVICE float infinity() { return float_of(0x7f800000u); }
DEVICE float not_a_number() { return float_of(0x7fc00000u); }

// Rising keys are falling logits, ties by rising id; a NaN has none. Keys of different tokens differ.
DEVICE u64 key_of(float logit, u32 id, u32 id_bits) {
  if (logit != logit) return NO_KEY;
  const u32 bits = bits_of(logit + 0.0f);  // -0 and 0 tie
  const u32 falling = bits >> 31 != 0 ? bits : ~(bits | 0x80000000u);
  return static_cast<u64>(falling) << id_bits | id;
}

DEVICE u32 id_of(u64 key, u32 id_bits) { return static_cast<u32>(key) & ((1u << id_bits) - 1u); }

DEVICE float logit_of(u64 key, u32 id_bits) {
  if (key == NO_KEY) return -infinity();
  const u32 falling = static_cast<u32>(key >> id_bits);
  return float_of(falling >> 31 != 0 ? falling : ~falling & 0x7fffffffu);
}

// (logit - largest) / temperature: at most 0, and NaN for a NaN. Equal to the largest is 0 even when both are infinite.
DEVICE float distance_of(float logit, float largest, float inverse_temperature) {
  return logit == largest ? 0.0f : (logit - largest) * inverse_temperature;
}

// A weight in units of 2^-44, 0 for NaN.
DEVICE u64 units_of(float weight) {
  const u32 bits = bits_of(weight);
  if (bits > 0x3f800000u) return 0;
  const u32 shift = 127u - (bits >> 23);
  return static_cast<u64>((bits & 0x7fffffu) | 0x800000u) << (WEIGHT_BITS - 23) >> (shift < 63u ? shift : 63u);
}

// The bin of a weight that has units.
DEVICE u32 bin_of(float distance) { return static_cast<u32>(-distance * BINS_PER_UNIT); }

// Natural logarithm of a normal positive number to 1e-12: the series of atanh around the nearest power of two.
DEVICE double log_f64(double x) {
  i32 exponent = 0;
  while (x >= 4294967296.0) x *= 2.3283064365386963e-10, exponent += 32;
  while (x >= 1.4142135623730951) x *= 0.5, exponent++;
  while (x < 1.1641532182693481e-10) x *= 4294967296.0, exponent -= 32;
  while (x < 0.70710678118654757) x *= 2.0, exponent--;
  const double s = (x - 1.0) / (x + 1.0);
  const double z = s * s;
  double p = 1.0 / 17.0;
#pragma unroll
  for (i32 odd = 15; odd > 0; odd -= 2) p = fused_multiply_add(p, z, 1.0 / odd);
  return fused_multiply_add(static_cast<double>(exponent), 0.69314718055994531, 2.0 * s * p);
}

// Uniform in [0, 1) with 53 bits: Philox 4x32-10 (Salmon et al., SC '11) of a 64-bit seed at a position, as on the CPU.
DEVICE double philox_uniform(u32 seed_low, u32 seed_high, u32 position) {
  u32 c0 = position, c1 = 0, c2 = 0, c3 = 0;
  for (u32 round = 0; round < 10; round++) {
    const u64 product0 = static_cast<u64>(0xd2511f53u) * c0;
    const u64 product1 = static_cast<u64>(0xcd9e8d57u) * c2;
    c0 = static_cast<u32>(product1 >> 32) ^ c1 ^ seed_low;
    c1 = static_cast<u32>(product1);
    c2 = static_cast<u32>(product0 >> 32) ^ c3 ^ seed_high;
    c3 = static_cast<u32>(product0);
    seed_low += 0x9e3779b9u;
    seed_high += 0xbb67ae85u;
  }
  const u64 mantissa = static_cast<u64>(c0 >> 5) << 26 | c1 >> 6;
  return static_cast<double>(mantissa) * 1.1102230246251565e-16;
}

DEVICE u64 shuffle_xor_wide(u64 value, u32 distance) {
  const u32 low = shuffle_xor(static_cast<u32>(value), distance);
  const u32 high = shuffle_xor(static_cast<u32>(value >> 32), distance);
  return static_cast<u64>(high) << 32 | low;
}

DEVICE u64 shuffle_up_wide(u64 value, u32 distance) {
  const u32 low = shuffle_up(static_cast<u32>(value), distance);
  const u32 high = shuffle_up(static_cast<u32>(value >> 32), distance);
  return static_cast<u64>(high) << 32 | low;
}

DEVICE u64 warp_least(u64 value) {
#pragma unroll
  for (u32 distance = WARP / 2; distance > 0; distance /= 2) {
    const u64 other = shuffle_xor_wide(value, distance);
    value = other < value ? other : value;
  }
  return value;
}

DEVICE u64 warp_total(u64 value) {
#pragma unroll
  for (u32 distance = WARP / 2; distance > 0; distance /= 2) value += shuffle_xor_wide(value, distance);
  return value;
}

// Over the block, the same in every thread. `partial` has a word per warp.
DEVICE u64 block_least(u64 value, u64* partial) {
  value = warp_least(value);
  barrier();
  if (lane_index() == 0) partial[warp_index()] = value;
  barrier();
  return warp_least(lane_index() < WARPS ? partial[lane_index()] : NO_KEY);
}

DEVICE u64 block_total(u64 value, u64* partial) {
  value = warp_total(value);
  barrier();
  if (lane_index() == 0) partial[warp_index()] = value;
  barrier();
  return warp_total(lane_index() < WARPS ? partial[lane_index()] : 0);
}

// Sum over this thread and those before it.
DEVICE u64 block_running_total(u64 value, u64* partial) {
#pragma unroll
  for (u32 distance = 1; distance < WARP; distance *= 2) {
    const u64 other = shuffle_up_wide(value, distance);
    if (lane_index() >= distance) value += other;
  }
  barrier();
  if (lane_index() == WARP - 1) partial[warp_index()] = value;
  barrier();
  return value + warp_total(lane_index() < warp_index() ? partial[lane_index()] : 0);
}

// Whether any thread of the block says so.
DEVICE bool block_any(bool value, u64* partial) {
  return block_least(value ? 0 : 1, partial) == 0;
}

// Whether this is the last block of its row to come here; then it sees what the others wrote before.
DEVICE bool is_last_block(u32* finished, u64* shared_word) {
  barrier();
  if (thread_x() == 0) {
    fence_device();
    *shared_word = atomic_add(finished, 1u) == grid_y() - 1;
    fence_device();
  }
  barrier();
  return *shared_word != 0;
}

// Weights and numbers of logits by bin, in shared memory. The weights are in two words because no device adds 64 bits
// there in one step: whoever overflows the low word carries.
struct Histogram {
  u32 low[SAMPLE_BINS];
  u32 high[SAMPLE_BINS];
  u32 count[SAMPLE_BINS];
};

DEVICE void clear(Histogram& histogram) {
  histogram.low[thread_x()] = 0;
  histogram.high[thread_x()] = 0;
  histogram.count[thread_x()] = 0;
}

DEVICE void add(Histogram& histogram, u32 bin, u64 units) {
  const u32 low = static_cast<u32>(units);
  const u32 carry = shared_atomic_add(&histogram.low[bin], low) + low < low ? 1u : 0u;
  const u32 high = static_cast<u32>(units >> 32) + carry;
  if (high != 0) shared_atomic_add(&histogram.high[bin], high);
  shared_atomic_add(&histogram.count[bin], 1u);
}

DEVICE u64 mass_of(const Histogram& histogram, u32 bin) {
  return static_cast<u64>(histogram.high[bin]) << 32 | histogram.low[bin];
}
