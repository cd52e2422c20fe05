// Tests of the emulator itself: a product through shared memory, asynchronous copies, and that what kernels do wrong is
// found; `lanes_test.cpp` has the layouts of single instructions. Ends with status 0 when all is well.
#include <stdio.h>
#include <string.h>

#include "../device.cuh"
#include "../float8.cuh"
#include "grid.h"
#include "memory.h"

// Of `lanes_test.cpp`.
u32 test_lane_layouts();

namespace {

struct Arguments {
  const u16* a;
  const u16* b;
  float* out;
};

constexpr u32 M = 16, N = 8, K = 32;

float half(u16 bits) { return half_to_float(bits); }

// out[16, 8] = a[16, 32] b[8, 32]^T by a warp: tiles come by asynchronous copies, a by ldmatrix, b by hand.
KERNEL(test_multiply, Arguments, 32, 1) {
  SHARED(u16, tile, [M][K]);
  const u32 lane = thread_x();
  for (u32 i = lane; i < M * K / 8; i += WARP) {
    copy_async16(&tile[i / (K / 8)][i % (K / 8) * 8], p.a + i * 8);
  }
  copy_async_commit();
  copy_async_wait<0>();
  barrier();
  float d[4] = {0, 0, 0, 0};
  for (u32 k = 0; k < K; k += 16) {
    u32 a[4], b[2];
    load_matrices(a, &tile[lane % 16][k + lane / 16 * 8]);
    const u16* column = p.b + lane / 4 * K + k + lane % 4 * 2;
    memcpy(&b[0], column, 4);
    memcpy(&b[1], column + 8, 4);
    multiply_f16(d, a, b);
  }
  for (u32 i = 0; i < 4; i++) p.out[(lane / 4 + i / 2 * 8) * N + lane % 4 * 2 + i % 2] = d[i];
}

// out[8, 8] halves: the transpose of the first matrix of a.
KERNEL(test_transpose, Arguments, 32, 1) {
  SHARED(u16, tile, [32][8]);
  const u32 lane = thread_x();
  for (u32 i = 0; i < 8; i++) tile[lane][i] = p.a[lane * 8 + i];
  warp_barrier();
  u32 registers[4];
  load_matrices_transposed(registers, tile[lane]);
  for (u32 i = 0; i < 2; i++)
    p.out[lane / 4 * 8 + lane % 4 * 2 + i] = half(static_cast<u16>(registers[0] >> (16 * i)));
}

// Halves [2][8][8]: the transposes of two matrices of a, of which only the lanes of their rows know the addresses.
KERNEL(test_two_transposes, Arguments, 32, 1) {
  SHARED(u16, tile, [16][8]);
  const u32 lane = thread_x();
  if (lane < 16)
    for (u32 i = 0; i < 8; i++) tile[lane][i] = p.a[lane * 8 + i];
  warp_barrier();
  u32 registers[2];
  load_two_matrices_transposed(registers, tile[lane % 16]);
  for (u32 matrix = 0; matrix < 2; matrix++)
    for (u32 i = 0; i < 2; i++)
      p.out[matrix * 64 + lane / 4 * 8 + lane % 4 * 2 + i] = half(static_cast<u16>(registers[matrix] >> (16 * i)));
}

// Every 8-bit float as f32, and what it is stored as again.
KERNEL(test_float8, Arguments, 256, 1) {
  const u32 pattern = thread_x();
  const float value = half(static_cast<u16>(widen_float8<2, 1>(pattern << 16)));
  const float other = half(static_cast<u16>(widen_float8<1, 2>(pattern << 16) >> 16));
  p.out[pattern] = value;
  p.out[256 + pattern] = value == other || (value != value && other != other) ? narrow_float8(value) : -1.0f;
}

// Forgets to wait for its copy.
KERNEL(test_unwaited, Arguments, 32, 1) {
  SHARED(u16, tile, [8]);
  if (thread_x() == 0) {
    copy_async16(tile, p.a);
    copy_async_commit();
    copy_async_wait<1>();
    p.out[0] = half(tile[0]);
  }
}

// Thread i reads what thread i + 1 writes, without a barrier.
KERNEL(test_race, Arguments, 64, 1) {
  SHARED(float, cell, [65]);
  cell[thread_x()] = 1.0f;
  p.out[thread_x()] = cell[(thread_x() + 1) % 64];
}

KERNEL(test_deadlock, Arguments, 64, 1) {
  if (thread_x() < 32) barrier();
  p.out[0] = 0;
}

KERNEL(test_lost_lane, Arguments, 32, 1) {
  if (thread_x() == 7) return;
  p.out[thread_x()] = warp_sum(1.0f);
}

KERNEL(test_outside, Arguments, 32, 1) { p.out[1 << 20] = 1.0f; }

KERNEL(test_sums, Arguments, 128, 1) {
  SHARED(float, partial, [32]);
  const float total = block_sum(static_cast<float>(thread_x()), partial);
  p.out[block_x() * block_threads() + thread_x()] = total;
}

u32 failures;

void expect(bool condition, const char* what) {
  if (condition) return;
  failures++;
  fprintf(stderr, "emulator: %s (%s)\n", what, emulator::failure_text());
}

bool run(const char* name, const Arguments& arguments, u32 blocks, u32 threads, bool reversed = false) {
  emulator::clear_failure();
  const emulator::Launch launch = {emulator::find_kernel(name), &arguments, {blocks, 1, 1}, threads, 0, reversed};
  return emulator::run_grid(launch);
}

void test_matrices(const Arguments& arguments) {
  expect(run("test_multiply", arguments, 1, 32), "the product runs");
  for (u32 i = 0; i < M * N; i++) {
    float sum = 0;
    for (u32 k = 0; k < K; k++) sum += half(arguments.a[i / N * K + k]) * half(arguments.b[i % N * K + k]);
    if (arguments.out[i] != sum) return expect(false, "a product's element is wrong");
  }
  expect(run("test_transpose", arguments, 1, 32), "the transpose runs");
  for (u32 i = 0; i < 64; i++)
    if (arguments.out[i] != half(arguments.a[i % 8 * 8 + i / 8])) return expect(false, "a transposed element is wrong");
  expect(run("test_two_transposes", arguments, 1, 32), "two transposes run");
  for (u32 i = 0; i < 128; i++)
    if (arguments.out[i] != half(arguments.a[i / 64 * 64 + i % 8 * 8 + i % 64 / 8])) return expect(false, "one of two transposes is wrong");
}

void test_float8(const Arguments& arguments) {
  expect(run("test_float8", arguments, 1, 256), "the 8-bit floats run");
  for (u32 pattern = 0; pattern < 256; pattern++) {
    const i32 exponent = pattern >> 3 & 15;
    const float fraction = static_cast<float>(pattern & 7) / 8;
    const float power = static_cast<float>(1 << (exponent + (exponent == 0))) / 128;
    const float magnitude = (exponent == 0 ? fraction : 1 + fraction) * power;
    const bool is_nan = (pattern & 127) == 127;
    const float actual = arguments.out[pattern];
    if (is_nan ? actual == actual : actual != (pattern < 128 ? magnitude : -magnitude)) return expect(false, "an 8-bit float is read wrong");
    if (arguments.out[256 + pattern] != static_cast<float>(is_nan ? 127 : pattern)) return expect(false, "an 8-bit float is stored wrong");
  }
}

void test_wrongs(const Arguments& arguments) {
  expect(run("test_unwaited", arguments, 1, 32) && arguments.out[0] != arguments.out[0], "an early read is NaN");
  run("test_race", arguments, 1, 64);
  const bool rising = arguments.out[0] == 1.0f;
  run("test_race", arguments, 1, 64, true);
  expect(rising != (arguments.out[0] == 1.0f), "a race gives other results in falling order");
  expect(!run("test_deadlock", arguments, 1, 64) && strstr(emulator::failure_text(), "deadlock"), "a deadlock ends");
  expect(!run("test_lost_lane", arguments, 1, 32) && strstr(emulator::failure_text(), "has ended"), "a lost lane is told");
  expect(!run("test_outside", arguments, 1, 32) && strstr(emulator::failure_text(), "outside"), "a wild write is told");
  arguments.out[256] = 0;
  expect(run("test_sums", arguments, 200, 128), "a grid on several threads runs after all this");
  for (u32 i = 0; i < 200 * 128; i++)
    if (arguments.out[i] != 8128.0f) return expect(false, "a sum over a block is wrong");
}

void test_memory() {
  u8* const memory = static_cast<u8*>(emulator::allocate(1000, true));
  expect(memory[0] == 0xff && memory[999] == 0xff, "memory is poisoned");
  memory[1000] = 0;
  expect(emulator::release(memory) == emulator::Freed::harmed, "a write past the end is found");
  expect(emulator::release(memory) == emulator::Freed::unknown, "memory is freed once");
  expect(emulator::allocate(u64(1) << 40, true) == nullptr, "memory ends");
}

}  // namespace

int main() {
  u16* const a = static_cast<u16*>(emulator::allocate(M * K * 2, true));
  u16* const b = static_cast<u16*>(emulator::allocate(N * K * 2, true));
  float* const out = static_cast<float*>(emulator::allocate(200 * 128 * 4, true));
  // Small whole numbers: every sum is exact.
  for (u32 i = 0; i < M * K; i++) a[i] = float_to_half(static_cast<float>(i * 7 % 13) - 6);
  for (u32 i = 0; i < N * K; i++) b[i] = float_to_half(static_cast<float>(i * 5 % 11) - 5);
  const Arguments arguments = {a, b, out};
  test_matrices(arguments);
  test_float8(arguments);
  test_wrongs(arguments);
  test_memory();
  failures += test_lane_layouts();
  return failures == 0 ? 0 : 1;
}
