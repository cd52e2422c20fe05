// What every kernel includes. The hardware is reached only through the functions of `hardware.cuh`, which have
// the same names in `emulator/hardware.h`, where they are plain C++ and run on the host.
#pragma once

#include "types.h"

#if defined(__CUDA__) || defined(__CUDACC__)
#include "hardware.cuh"
#else
#include "emulator/hardware.h"
#endif

static constexpr u32 WARP = 32;
static constexpr u32 FULL_MASK = 0xffffffffu;

struct alignas(16) Float4 {
  float x, y, z, w;
};

struct alignas(16) Words4 {
  u32 x, y, z, w;
};

DEVICE u32 lane_index() { return thread_x() % WARP; }
DEVICE u32 warp_index() { return thread_x() / WARP; }

// Rows that exist in this step. A grid may be made for more: a block past them leaves at once.
DEVICE u32 rows_of(const Leading& leading) {
  return leading.addend + (leading.symbol == 0 ? 0 : leading.step->dims[leading.symbol - 1]);
}

// Tells the host that an input of op `op` is wrong. The first report of a step wins; the kernel that reports
// skips the row and touches nothing outside its tensors.
DEVICE void report_fault(Step* step, u32 op, Fault reason) {
  const u32 word = op << 8 | reason;
  if (atomic_compare_swap(&step->fault, 0u, word) == 0u) {
    *static_cast<volatile u32*>(step->host_fault) = word;
    fence_system();
  }
}

// Sum over a warp, the same bits in every lane: lane i with lane i ^ 16, and so on down.
DEVICE float warp_sum(float value) {
#pragma unroll
  for (u32 distance = WARP / 2; distance > 0; distance /= 2) value += shuffle_xor(value, distance);
  return value;
}

DEVICE float warp_max(float value) {
#pragma unroll
  for (u32 distance = WARP / 2; distance > 0; distance /= 2) {
    const float other = shuffle_xor(value, distance);
    value = other > value ? other : value;
  }
  return value;
}

// Sum over a block of whole warps, the same bits in every thread. `partial` has one float per warp; it may be
// used again after the next barrier.
DEVICE float block_sum(float value, float* partial) {
  const u32 warps = block_threads() / WARP;
  value = warp_sum(value);
  if (warps == 1) return value;
  if (lane_index() == 0) partial[warp_index()] = value;
  barrier();
  return warp_sum(lane_index() < warps ? partial[lane_index()] : 0.0f);
}
