// The functions of `hardware.cuh` as plain C++, so that kernels run on the host. The layouts of the matrix
// instructions are those of the PTX manual, element by element.
#pragma once

#include "../types.h"
#include "block.h"

// The emulated device is an Ampere.
#define CUDA_ARCH 80

#define DEVICE inline __attribute__((always_inline))

#define KERNEL(name, Parameters, threads, blocks)                                                          \
  static void name##_body(const Parameters& p);                                                            \
  static const emulator::Kernel name##_kernel(#name, sizeof(Parameters), threads, [](const void* memory) { \
    name##_body(*static_cast<const Parameters*>(memory));                                                  \
  });                                                                                                      \
  static void name##_body(const Parameters& p)

#define SHARED(type, name, extent)    \
  typedef type name##_type extent;    \
  static const char name##_key = 0;   \
  name##_type& name = *static_cast<name##_type*>(emulator::static_shared(&name##_key, sizeof(name##_type)))

#define DYNAMIC_SHARED(type, name) type* name = reinterpret_cast<type*>(emulator::worker->dynamic_shared)

DEVICE u32 thread_x() { return emulator::worker->fiber->thread; }
DEVICE u32 block_x() { return emulator::worker->block[0]; }
DEVICE u32 block_y() { return emulator::worker->block[1]; }
DEVICE u32 block_z() { return emulator::worker->block[2]; }
DEVICE u32 block_threads() { return emulator::worker->launch->threads; }
DEVICE u32 grid_x() { return emulator::worker->launch->grid[0]; }
DEVICE u32 grid_y() { return emulator::worker->launch->grid[1]; }
DEVICE u32 grid_z() { return emulator::worker->launch->grid[2]; }

DEVICE void barrier() { emulator::barrier(0, block_threads()); }
DEVICE void named_barrier(u32 id, u32 threads) { emulator::barrier(id, threads); }

DEVICE u32 bits_of(float value) { return __builtin_bit_cast(u32, value); }
DEVICE float float_of(u32 bits) { return __builtin_bit_cast(float, bits); }

namespace emulator {

struct Exchange {
  u32 value;
  u32 operand;
};

template <typename Source>
void exchange(Fiber* const (&lanes)[32], Source source) {
  for (u32 lane = 0; lane < 32; lane++) {
    if (lanes[lane] == nullptr) continue;
    const Exchange own = *static_cast<const Exchange*>(lanes[lane]->in);
    const u32 from = source(lane, own.operand);
    // Reading a lane outside the mask is undefined on the hardware.
    const bool there = from < 32 && lanes[from] != nullptr;
    const u32 value = there ? static_cast<const Exchange*>(lanes[from]->in)->value : 0xffffffffu;
    *static_cast<u32*>(lanes[lane]->out) = value;
  }
}

}  // namespace emulator

#define SHUFFLE(function, from)                                                        \
  DEVICE u32 function(u32 value, u32 operand, u32 mask = 0xffffffffu) {                \
    const emulator::Exchange in = {value, operand};                                    \
    u32 out;                                                                           \
    emulator::collective(                                                              \
        mask,                                                                          \
        [](emulator::Fiber* const (&lanes)[32]) {                                      \
          emulator::exchange(lanes, [](u32 lane, u32 operand) -> u32 { return from; }); \
        },                                                                             \
        &in, &out);                                                                    \
    return out;                                                                        \
  }                                                                                    \
  DEVICE i32 function(i32 value, u32 operand, u32 mask = 0xffffffffu) {                \
    return static_cast<i32>(function(static_cast<u32>(value), operand, mask));         \
  }                                                                                    \
  DEVICE float function(float value, u32 operand, u32 mask = 0xffffffffu) {            \
    return float_of(function(bits_of(value), operand, mask));                          \
  }

SHUFFLE(shuffle, ((void)lane, operand & 31))
SHUFFLE(shuffle_xor, lane ^ (operand & 31))
SHUFFLE(shuffle_up, lane >= operand ? lane - operand : lane)
SHUFFLE(shuffle_down, lane + operand < 32 ? lane + operand : lane)
#undef SHUFFLE

DEVICE void warp_barrier(u32 mask = 0xffffffffu) {
  emulator::collective(mask, [](emulator::Fiber* const (&)[32]) {}, nullptr, nullptr);
}

DEVICE u32 ballot(bool predicate, u32 mask = 0xffffffffu) {
  u32 out;
  emulator::collective(
      mask,
      [](emulator::Fiber* const (&lanes)[32]) {
        u32 bits = 0;
        for (u32 lane = 0; lane < 32; lane++)
          if (lanes[lane] != nullptr && *static_cast<const bool*>(lanes[lane]->in)) bits |= 1u << lane;
        for (emulator::Fiber* lane : lanes)
          if (lane != nullptr) *static_cast<u32*>(lane->out) = bits;
      },
      &predicate, &out);
  return out;
}

DEVICE u32 atomic_compare_swap(u32* word, u32 expected, u32 wanted) {
  return __sync_val_compare_and_swap(word, expected, wanted);
}
DEVICE u32 atomic_add(u32* word, u32 value) { return __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST); }
DEVICE float atomic_add(float* word, float value) {
  u32* const bits = reinterpret_cast<u32*>(word);
  for (;;) {
    const u32 old = __atomic_load_n(bits, __ATOMIC_SEQ_CST);
    if (__sync_bool_compare_and_swap(bits, old, bits_of(float_of(old) + value))) return float_of(old);
  }
}
DEVICE u32 atomic_max(u32* word, u32 value) { return __atomic_fetch_max(word, value, __ATOMIC_SEQ_CST); }

DEVICE u32 shared_atomic_add(u32* shared, u32 value) { return __atomic_fetch_add(shared, value, __ATOMIC_SEQ_CST); }
DEVICE void reduce_add(u32* word, u32 value) { __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST); }
DEVICE void reduce_add(u64* word, u64 value) { __atomic_fetch_add(word, value, __ATOMIC_SEQ_CST); }

// Contraction does not cross a function.
DEVICE float multiply_rounded(float a, float b) { return a * b; }

DEVICE void fence_device() { __sync_synchronize(); }
DEVICE void fence_system() { __sync_synchronize(); }

DEVICE float half_to_float(u16 bits) { return static_cast<float>(__builtin_bit_cast(_Float16, bits)); }
DEVICE u16 float_to_half(float value) { return __builtin_bit_cast(u16, static_cast<_Float16>(value)); }
DEVICE float fused_multiply_add(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double fused_multiply_add(double a, double b, double c) { return __builtin_fma(a, b, c); }
DEVICE float square_root(float x) { return __builtin_sqrtf(x); }
DEVICE double round_to_integer(double x) { return __builtin_rint(x); }

DEVICE i32 dot4(u32 a, u32 b, i32 sum) {
  for (u32 i = 0; i < 4; i++) sum += static_cast<i8>(a >> (8 * i)) * static_cast<i8>(b >> (8 * i));
  return sum;
}

DEVICE void load_once(const void* source, u32 (&words)[4]) {
  if (reinterpret_cast<u64>(source) % 16 != 0) emulator::fail("a load of 16 bytes is not aligned");
  __builtin_memcpy(words, source, 16);
}

DEVICE void copy_async16(void* shared, const void* source, u32 valid = 16) {
  emulator::copy_begin(shared, source, valid);
}
DEVICE void copy_async_commit() { emulator::copy_commit(); }
template <u32 pending>
DEVICE void copy_async_wait() {
  emulator::copy_wait(pending);
}

namespace emulator {

template <bool transposed>
void load_matrices(Fiber* const (&lanes)[32]) {
  for (u32 lane = 0; lane < 32; lane++) {
    if (lanes[lane] == nullptr) return;
    u32* const out = static_cast<u32*>(lanes[lane]->out);
    for (u32 matrix = 0; matrix < 4; matrix++) {
      const u32 major = lane / 4, minor = lane % 4 * 2;
      u16 pair[2];
      for (u32 i = 0; i < 2; i++) {
        const u32 row = transposed ? minor + i : major;
        const u32 column = transposed ? major : minor + i;
        pair[i] = static_cast<const u16*>(lanes[matrix * 8 + row]->in)[column];
      }
      out[matrix] = pair[0] | static_cast<u32>(pair[1]) << 16;
    }
  }
}

struct Operands {
  const u32* a;
  const u32* b;
};

// Element `index` of a register array of pairs.
template <typename Convert>
float element(const u32* registers, u32 index, Convert convert) {
  return convert(static_cast<u16>(registers[index / 2] >> (16 * (index % 2))));
}

template <typename Convert>
void multiply(Fiber* const (&lanes)[32], Convert convert) {
  float a[16][16], b[16][8];
  for (u32 lane = 0; lane < 32; lane++) {
    if (lanes[lane] == nullptr) return;
    const Operands own = *static_cast<const Operands*>(lanes[lane]->in);
    const u32 g = lane / 4, t = lane % 4;
    for (u32 i = 0; i < 8; i++) {
      // Registers 0 and 2 hold row g, 1 and 3 row g + 8; 2 and 3 hold the higher columns.
      const u32 row = g + (i / 2 % 2) * 8;
      const u32 column = 2 * t + i % 2 + (i / 4) * 8;
      a[row][column] = element(own.a, i, convert);
    }
    for (u32 i = 0; i < 4; i++) b[2 * t + i % 2 + (i / 2) * 8][g] = element(own.b, i, convert);
  }
  for (u32 lane = 0; lane < 32; lane++) {
    float* const d = static_cast<float*>(lanes[lane]->out);
    const u32 g = lane / 4, t = lane % 4;
    for (u32 i = 0; i < 4; i++) {
      const u32 row = g + i / 2 * 8, column = 2 * t + i % 2;
      float sum = d[i];
      for (u32 k = 0; k < 16; k++) sum = __builtin_fmaf(a[row][k], b[k][column], sum);
      d[i] = sum;
    }
  }
}

}  // namespace emulator

DEVICE void load_matrices(u32 (&registers)[4], const void* shared_row) {
  if (reinterpret_cast<u64>(shared_row) % 16 != 0) emulator::fail("a matrix row is not aligned to 16 bytes");
  emulator::collective(0xffffffffu, emulator::load_matrices<false>, shared_row, registers);
}

DEVICE void load_matrices_transposed(u32 (&registers)[4], const void* shared_row) {
  if (reinterpret_cast<u64>(shared_row) % 16 != 0) emulator::fail("a matrix row is not aligned to 16 bytes");
  emulator::collective(0xffffffffu, emulator::load_matrices<true>, shared_row, registers);
}

DEVICE void multiply_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const emulator::Operands in = {a, b};
  emulator::collective(
      0xffffffffu,
      [](emulator::Fiber* const (&lanes)[32]) {
        emulator::multiply(lanes, [](u16 bits) { return static_cast<float>(__builtin_bit_cast(_Float16, bits)); });
      },
      &in, d);
}

DEVICE void multiply_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const emulator::Operands in = {a, b};
  emulator::collective(
      0xffffffffu,
      [](emulator::Fiber* const (&lanes)[32]) {
        emulator::multiply(lanes, [](u16 bits) { return float_of(static_cast<u32>(bits) << 16); });
      },
      &in, d);
}

DEVICE i32 round_to_i32(float x) { return static_cast<i32>(__builtin_rintf(x)); }

DEVICE u32 select_bytes(u32 low, u32 high, u32 selector) {
  const u64 bytes = low | static_cast<u64>(high) << 32;
  u32 value = 0;
  for (u32 i = 0; i < 4; i++) value |= static_cast<u32>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return value;
}

namespace emulator {

// d[16, 8] += a[16, depth] b[depth, 8] of signed bytes, depth 16 or 32.
template <u32 depth>
void multiply_bytes(Fiber* const (&lanes)[32]) {
  i32 a[16][depth], b[depth][8];
  for (u32 lane = 0; lane < 32; lane++) {
    if (lanes[lane] == nullptr) return;
    const Operands own = *static_cast<const Operands*>(lanes[lane]->in);
    const u32 g = lane / 4, t = lane % 4;
    for (u32 i = 0; i < depth / 2; i++)
      a[g + i / 4 % 2 * 8][4 * t + i % 4 + i / 8 * 16] = static_cast<i8>(own.a[i / 4] >> (8 * (i % 4)));
    for (u32 i = 0; i < depth / 4; i++) b[4 * t + i % 4 + i / 4 * 16][g] = static_cast<i8>(own.b[i / 4] >> (8 * (i % 4)));
  }
  for (u32 lane = 0; lane < 32; lane++) {
    i32* const d = static_cast<i32*>(lanes[lane]->out);
    for (u32 i = 0; i < 4; i++)
      for (u32 k = 0; k < depth; k++) d[i] += a[lane / 4 + i / 2 * 8][k] * b[k][lane % 4 * 2 + i % 2];
  }
}

}  // namespace emulator

DEVICE void multiply_bytes16(i32 (&d)[4], u32 a0, u32 a1, u32 b) {
  const u32 a[2] = {a0, a1};
  const emulator::Operands in = {a, &b};
  emulator::collective(0xffffffffu, emulator::multiply_bytes<16>, &in, d);
}

DEVICE void multiply_bytes32(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const emulator::Operands in = {a, b};
  emulator::collective(0xffffffffu, emulator::multiply_bytes<32>, &in, d);
}

DEVICE u32 pack_f16(float low, float high) { return float_to_half(low) | static_cast<u32>(float_to_half(high)) << 16; }

DEVICE u32 pack_bf16(float low, float high) {
  const float values[2] = {low, high};
  u32 pair = 0;
  for (u32 i = 0; i < 2; i++) {
    const u32 bits = bits_of(values[i]);
    const u32 rounded = values[i] != values[i] ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    pair |= rounded << (16 * i);
  }
  return pair;
}

DEVICE u32 opaque(u32 value) { return value; }

DEVICE float exp2_fast(float x) {
  const float value = __builtin_exp2f(x);
  return value < 1.17549435e-38f ? 0.0f : value;
}

DEVICE u32 multiply_halves(u32 a, u32 b) {
  u32 value = 0;
  for (u32 shift = 0; shift < 32; shift += 16)
    value |= static_cast<u32>(float_to_half(half_to_float(static_cast<u16>(a >> shift)) * half_to_float(static_cast<u16>(b >> shift)))) << shift;
  return value;
}

DEVICE void load_two_matrices_transposed(u32 (&registers)[2], const void* shared_row) {
  u32 four[4];
  // Lanes from 16 on name rows of matrices that nobody asked for.
  load_matrices_transposed(four, shared_row);
  registers[0] = four[0];
  registers[1] = four[1];
}
