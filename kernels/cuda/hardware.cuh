// The hardware for nvcc and for clang: index registers, barriers, shuffles, atomics, conversions, asynchronous
// copies and tensor-core instructions, as inline PTX wherever the compilers have no common spelling. Whoever adds a
// function adds its twin to `emulator/hardware.h`.
#pragma once

#include "types.h"

#if !defined(__NVCC__)
// clang without the CUDA headers.
#define __global__ __attribute__((global))
#define __device__ __attribute__((device))
#define __shared__ __attribute__((shared))
#define __grid_constant__ __attribute__((grid_constant))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#endif

// 75 for compute capability 7.5 and so on.
#if defined(__CUDA_ARCH__)
#define CUDA_ARCH (__CUDA_ARCH__ / 10)
#else
#define CUDA_ARCH 75
#endif

#define DEVICE __device__ __forceinline__

// A kernel, its parameters `p`, the most threads of a block and the blocks that should fit on a multiprocessor.
#define KERNEL(name, Parameters, threads, blocks) \
  extern "C" __global__ __launch_bounds__(threads, blocks) void name(const __grid_constant__ Parameters p)

// An array in shared memory: `SHARED(float, partial, [32]);`
#define SHARED(type, name, extent) __shared__ __align__(16) type name extent

// The shared memory whose size the launch gives: `DYNAMIC_SHARED(u8, tiles);`
#define DYNAMIC_SHARED(type, name)                             \
  extern __shared__ __align__(128) u8 dynamic_shared_memory[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared_memory)


#if defined(__NVCC__)
DEVICE u32 thread_x() { return threadIdx.x; }
DEVICE u32 block_x() { return blockIdx.x; }
DEVICE u32 block_y() { return blockIdx.y; }
DEVICE u32 block_z() { return blockIdx.z; }
DEVICE u32 block_threads() { return blockDim.x; }
DEVICE u32 grid_x() { return gridDim.x; }
DEVICE u32 grid_y() { return gridDim.y; }
DEVICE u32 grid_z() { return gridDim.z; }
DEVICE void barrier() { __syncthreads(); }
#else
// The compiler knows the ranges of these, which it would not of a register read by assembly.
DEVICE u32 thread_x() { return __nvvm_read_ptx_sreg_tid_x(); }
DEVICE u32 block_x() { return __nvvm_read_ptx_sreg_ctaid_x(); }
DEVICE u32 block_y() { return __nvvm_read_ptx_sreg_ctaid_y(); }
DEVICE u32 block_z() { return __nvvm_read_ptx_sreg_ctaid_z(); }
DEVICE u32 block_threads() { return __nvvm_read_ptx_sreg_ntid_x(); }
DEVICE u32 grid_x() { return __nvvm_read_ptx_sreg_nctaid_x(); }
DEVICE u32 grid_y() { return __nvvm_read_ptx_sreg_nctaid_y(); }
DEVICE u32 grid_z() { return __nvvm_read_ptx_sreg_nctaid_z(); }
DEVICE void barrier() { __syncthreads(); }
#endif

// Barrier `id` (1 to 15; 0 is that of the whole block) of `threads` threads, whole warps.
DEVICE void named_barrier(u32 id, u32 threads) { asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"); }

DEVICE void warp_barrier(u32 mask = 0xffffffffu) { asm volatile("bar.warp.sync %0;" ::"r"(mask) : "memory"); }

DEVICE u32 bits_of(float value) {
  u32 bits;
  asm("mov.b32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

DEVICE float float_of(u32 bits) {
  float value;
  asm("mov.b32 %0, %1;" : "=f"(value) : "r"(bits));
  return value;
}

#define SHUFFLE(function, mode, clamp)                                                              \
  DEVICE u32 function(u32 value, u32 operand, u32 mask = 0xffffffffu) {                             \
    u32 result;                                                                                     \
    asm volatile("shfl.sync." mode ".b32 %0, %1, %2, " clamp ", %3;"                                \
                 : "=r"(result)                                                                     \
                 : "r"(value), "r"(operand), "r"(mask));                                            \
    return result;                                                                                  \
  }                                                                                                 \
  DEVICE i32 function(i32 value, u32 operand, u32 mask = 0xffffffffu) {                             \
    return static_cast<i32>(function(static_cast<u32>(value), operand, mask));                      \
  }                                                                                                 \
  DEVICE float function(float value, u32 operand, u32 mask = 0xffffffffu) {                         \
    return float_of(function(bits_of(value), operand, mask));                                       \
  }

// From lane `operand`; from lane ^ operand; from lane - operand and lane + operand, where there is one.
SHUFFLE(shuffle, "idx", "31")
SHUFFLE(shuffle_xor, "bfly", "31")
SHUFFLE(shuffle_up, "up", "0")
SHUFFLE(shuffle_down, "down", "31")
#undef SHUFFLE

// One bit per lane of the warp.
DEVICE u32 ballot(bool predicate, u32 mask = 0xffffffffu) {
  u32 result;
  asm volatile(
      "{ .reg .pred p; setp.ne.u32 p, %1, 0; vote.sync.ballot.b32 %0, p, %2; }"
      : "=r"(result)
      : "r"(static_cast<u32>(predicate)), "r"(mask));
  return result;
}

DEVICE u32 atomic_compare_swap(u32* word, u32 expected, u32 wanted) {
  u32 old;
  asm volatile("atom.cas.b32 %0, [%1], %2, %3;" : "=r"(old) : "l"(word), "r"(expected), "r"(wanted) : "memory");
  return old;
}

DEVICE u32 atomic_add(u32* word, u32 value) {
  u32 old;
  asm volatile("atom.add.u32 %0, [%1], %2;" : "=r"(old) : "l"(word), "r"(value) : "memory");
  return old;
}

DEVICE float atomic_add(float* word, float value) {
  float old;
  asm volatile("atom.add.f32 %0, [%1], %2;" : "=f"(old) : "l"(word), "f"(value) : "memory");
  return old;
}

DEVICE u32 atomic_max(u32* word, u32 value) {
  u32 old;
  asm volatile("atom.max.u32 %0, [%1], %2;" : "=r"(old) : "l"(word), "r"(value) : "memory");
  return old;
}

// To a word in shared memory; returns what was there.
DEVICE u32 shared_atomic_add(u32* shared, u32 value) {
  u32 old;
  asm volatile("{ .reg .u64 a; .reg .u32 b; cvta.to.shared.u64 a, %1; cvt.u32.u64 b, a; atom.shared.add.u32 %0, [b], %2; }"
               : "=r"(old)
               : "l"(shared), "r"(value)
               : "memory");
  return old;
}

// To words in global memory, without an answer.
DEVICE void reduce_add(u32* word, u32 value) { asm volatile("red.global.add.u32 [%0], %1;" ::"l"(word), "r"(value) : "memory"); }
DEVICE void reduce_add(u64* word, u64 value) { asm volatile("red.global.add.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory"); }

// A product that no compiler fuses with a sum.
DEVICE float multiply_rounded(float a, float b) {
  float value;
  asm("mul.rn.f32 %0, %1, %2;" : "=f"(value) : "f"(a), "f"(b));
  return value;
}

// Orders this thread's writes before its later ones, as the device and as the host see them.
DEVICE void fence_device() { asm volatile("membar.gl;" ::: "memory"); }
DEVICE void fence_system() { asm volatile("membar.sys;" ::: "memory"); }

DEVICE float half_to_float(u16 bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// Rounded to nearest even, as every conversion here.
DEVICE u16 float_to_half(float value) {
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

DEVICE float fused_multiply_add(float a, float b, float c) {
  float value;
  asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(value) : "f"(a), "f"(b), "f"(c));
  return value;
}

DEVICE double fused_multiply_add(double a, double b, double c) {
  double value;
  asm("fma.rn.f64 %0, %1, %2, %3;" : "=d"(value) : "d"(a), "d"(b), "d"(c));
  return value;
}

DEVICE float square_root(float x) {
  float value;
  asm("sqrt.rn.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
}

DEVICE double round_to_integer(double x) {
  double value;
  asm("cvt.rni.f64.f64 %0, %1;" : "=d"(value) : "d"(x));
  return value;
}

// Four products of signed bytes, added to `sum`.
DEVICE i32 dot4(u32 a, u32 b, i32 sum) {
  i32 result;
  asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(sum));
  return result;
}

// 16 bytes that are read once, so that they push nothing useful out of the first cache.
DEVICE void load_once(const void* source, u32 (&words)[4]) {
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
               : "l"(source));
}

DEVICE u32 shared_address(const void* shared) {
  u64 address;
  asm("cvta.to.shared.u64 %0, %1;" : "=l"(address) : "l"(shared));
  return static_cast<u32>(address);
}

// Copies 16 bytes to shared memory in the background; of these `valid` come from `source`, the rest are zero.
DEVICE void copy_async16(void* shared, const void* source, u32 valid = 16) {
#if CUDA_ARCH >= 80
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(source), "r"(valid)
               : "memory");
#else
  u8* target = static_cast<u8*>(shared);
  const u8* bytes = static_cast<const u8*>(source);
  if (valid == 16) {
    asm volatile(
        "{ .reg .b32 a, b, c, d; ld.global.v4.b32 {a, b, c, d}, [%1]; st.shared.v4.b32 [%0], {a, b, c, d}; }" ::"r"(
            shared_address(shared)),
        "l"(source)
        : "memory");
  } else {
    for (u32 i = 0; i < 16; i++) target[i] = i < valid ? bytes[i] : u8(0);
  }
#endif
}

// Closes the group of copies begun since the last one.
DEVICE void copy_async_commit() {
#if CUDA_ARCH >= 80
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most `pending` of this thread's groups are under way; a barrier must follow before others read.
template <u32 pending>
DEVICE void copy_async_wait() {
#if CUDA_ARCH >= 80
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements from shared memory. Lane i names row i % 8 of matrix i / 8; register m of
// lane i gets elements 2 (i % 4) and 2 (i % 4) + 1 of row i / 4 of matrix m (of its column when transposed).
DEVICE void load_matrices(u32 (&registers)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(shared_row))
               : "memory");
}

DEVICE void load_matrices_transposed(u32 (&registers)[4], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
               : "r"(shared_address(shared_row))
               : "memory");
}

// d[16, 8] += a[16, 16] b[16, 8] over a warp; layouts as in the PTX manual (mma.m16n8k16): lane i holds, with
// g = i / 4 and t = i % 4, a: rows g and g + 8, columns 2t, 2t + 1, 2t + 8, 2t + 9 in the order (g, low), (g + 8,
// low), (g, high), (g + 8, high); b: rows 2t.. and 2t + 8.. of column g; d: row g then g + 8, columns 2t, 2t + 1.
DEVICE void multiply_f16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if CUDA_ARCH >= 80
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  // Turing has half the depth: the first eight columns of a, then the others.
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]));
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[2]), "r"(a[3]), "r"(b[1]));
#endif
}

#if CUDA_ARCH >= 80
// The same of bfloat16; not before Ampere.
DEVICE void multiply_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
      "%2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
#endif

// Rounded to nearest even.
DEVICE i32 round_to_i32(float x) {
  i32 value;
  asm("cvt.rni.s32.f32 %0, %1;" : "=r"(value) : "f"(x));
  return value;
}

// Bytes `selector & 7`, `selector >> 4 & 7` and so on of the eight of low and high.
DEVICE u32 select_bytes(u32 low, u32 high, u32 selector) {
  u32 value;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(value) : "r"(low), "r"(high), "r"(selector));
  return value;
}

// d[16, 8] += a[16, 16] b[16, 8] of signed bytes (mma.m16n8k16): lane i holds, with g = i / 4 and t = i % 4, columns 4t
// to 4t + 3 of rows g and g + 8 of a, rows 4t to 4t + 3 of column g of b, and d as of `multiply_f16`.
DEVICE void multiply_bytes16(i32 (&d)[4], u32 a0, u32 a1, u32 b) {
#if CUDA_ARCH >= 80
  asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
               : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
               : "r"(a0), "r"(a1), "r"(b));
#else
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+r"(d[0]), "+r"(d[1])
               : "r"(a0), "r"(b));
  asm volatile("mma.sync.aligned.m8n8k16.row.col.s32.s8.s8.s32 {%0, %1}, {%2}, {%3}, {%0, %1};"
               : "+r"(d[2]), "+r"(d[3])
               : "r"(a1), "r"(b));
#endif
}

// d[16, 8] += a[16, 32] b[32, 8] of signed bytes: a[0], a[1] and b[0] as above, the others 16 further on.
DEVICE void multiply_bytes32(i32 (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
#if CUDA_ARCH >= 80
  asm volatile(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  multiply_bytes16(d, a[0], a[1], b[0]);
  multiply_bytes16(d, a[2], a[3], b[1]);
#endif
}

#if CUDA_ARCH < 80
// What Turing lacks, by shuffles: right, but slow.
DEVICE void multiply_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) {
  const u32 lane = thread_x() % 32, row = lane / 4 * 4, column = lane % 4 * 8;
#pragma unroll 1
  for (u32 t = 0; t < 4; t++) {
#pragma unroll
    for (u32 high = 0; high < 2; high++) {
      const u32 upper = shuffle(a[2 * high], row + t), lower = shuffle(a[2 * high + 1], row + t);
      const u32 left = shuffle(b[high], column + t), right = shuffle(b[high], column + 4 + t);
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        const u32 up = i == 0 ? 16 : 0, mask = 0xffff0000u;
        d[0] = fused_multiply_add(float_of(upper << up & mask), float_of(left << up & mask), d[0]);
        d[1] = fused_multiply_add(float_of(upper << up & mask), float_of(right << up & mask), d[1]);
        d[2] = fused_multiply_add(float_of(lower << up & mask), float_of(left << up & mask), d[2]);
        d[3] = fused_multiply_add(float_of(lower << up & mask), float_of(right << up & mask), d[3]);
      }
    }
  }
}
#endif

// Two floats as halves, or as bfloat16, in one word.
DEVICE u32 pack_f16(float low, float high) {
#if CUDA_ARCH >= 80
  u32 pair;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return float_to_half(low) | static_cast<u32>(float_to_half(high)) << 16;
#endif
}

#if CUDA_ARCH >= 80
DEVICE u32 pack_bf16(float low, float high) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
#else
// A NaN stays one.
DEVICE u32 round_to_bf16(float value) {
  const u32 bits = bits_of(value);
  return (value != value ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
DEVICE u32 pack_bf16(float low, float high) { return round_to_bf16(low) | round_to_bf16(high) << 16; }
#endif

// The same value, of which the compiler knows nothing: what is computed from it is not moved out of a loop, where it
// would take registers.
DEVICE u32 opaque(u32 value) {
  asm volatile("" : "+r"(value));
  return value;
}

// 2^x with an error of 2^-22; 0 for minus infinity and for results below the normal range.
DEVICE float exp2_fast(float x) {
  float value;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(value) : "f"(x));
  return value;
}

// Products of two pairs of halves, rounded to nearest even.
DEVICE u32 multiply_halves(u32 a, u32 b) {
  u32 value;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(value) : "r"(a), "r"(b));
  return value;
}

#if CUDA_ARCH >= 89
// Two 8-bit floats (E4M3 without infinities), in the low half of `pair`, as halves.
DEVICE u32 convert_float8(u32 pair) {
  u32 halves;
  asm("{ .reg .b16 low, high; mov.b32 {low, high}, %1; cvt.rn.f16x2.e4m3x2 %0, low; }" : "=r"(halves) : "r"(pair));
  return halves;
}

// As an 8-bit float, rounded to nearest even; 448 of its sign for what is beyond.
DEVICE u8 convert_to_float8(float value) {
  u16 pair;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(pair) : "f"(0.0f), "f"(value));
  return static_cast<u8>(pair);
}
#endif

// Two matrices of `load_matrices_transposed`: those of lanes 0 to 7 and 8 to 15. The other lanes' addresses are not used.
DEVICE void load_two_matrices_transposed(u32 (&registers)[2], const void* shared_row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(registers[0]), "=r"(registers[1])
               : "r"(shared_address(shared_row))
               : "memory");
}
