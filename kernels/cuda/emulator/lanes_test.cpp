// Functions of `hardware.cuh` that move data between lanes, against the fragment tables of the PTX ISA manual (sections
// on mma.m16n8k16, mma.m16n8k32, ldmatrix, shfl.sync and vote.sync). The tables stand here as the manual has them, row
// and column of each element of a lane; nothing is shared with the emulator's own arithmetic.
#include <stdio.h>
#include <string.h>

#include "../device.cuh"
#include "grid.h"
#include "memory.h"

namespace {

struct Fragments {
  // [lane][register]
  const u32* a;
  const u32* b;
  void* d;
};

struct Place {
  u32 row, column;
};

// Element i of a lane in each fragment; group is lane / 4 and thread lane % 4, as in the manual.
Place wide_a(u32 group, u32 thread, u32 i) {
  return {(i < 2) || (i >= 4 && i < 6) ? group : group + 8, thread * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}
Place wide_b(u32 group, u32 thread, u32 i) { return {thread * 2 + (i & 1) + (i >= 2 ? 8 : 0), group}; }
Place bytes16_a(u32 group, u32 thread, u32 i) { return {i < 4 ? group : group + 8, thread * 4 + (i & 3)}; }
Place bytes16_b(u32 group, u32 thread, u32 i) { return {thread * 4 + (i & 3), group}; }
Place bytes32_a(u32 group, u32 thread, u32 i) {
  return {(i < 4) || (i >= 8 && i < 12) ? group : group + 8, thread * 4 + (i & 3) + (i >= 8 ? 16 : 0)};
}
Place bytes32_b(u32 group, u32 thread, u32 i) { return {thread * 4 + (i & 3) + (i >= 4 ? 16 : 0), group}; }
Place sums(u32 group, u32 thread, u32 i) { return {i < 2 ? group : group + 8, thread * 2 + (i & 1)}; }

template <u32 count>
void load(u32 (&registers)[count], const u32* memory) {
  for (u32 i = 0; i < count; i++) registers[i] = memory[thread_x() * count + i];
}

KERNEL(test_multiply_f16, Fragments, 32, 1) {
  u32 a[4], b[2];
  load(a, p.a);
  load(b, p.b);
  float(&d)[4] = static_cast<float(*)[4]>(p.d)[thread_x()];
  multiply_f16(d, a, b);
}

KERNEL(test_multiply_bf16, Fragments, 32, 1) {
  u32 a[4], b[2];
  load(a, p.a);
  load(b, p.b);
  float(&d)[4] = static_cast<float(*)[4]>(p.d)[thread_x()];
  multiply_bf16(d, a, b);
}

KERNEL(test_multiply_bytes16, Fragments, 32, 1) {
  u32 a[2], b[1];
  load(a, p.a);
  load(b, p.b);
  i32(&d)[4] = static_cast<i32(*)[4]>(p.d)[thread_x()];
  multiply_bytes16(d, a[0], a[1], b[0]);
}

KERNEL(test_multiply_bytes32, Fragments, 32, 1) {
  u32 a[4], b[2];
  load(a, p.a);
  load(b, p.b);
  i32(&d)[4] = static_cast<i32(*)[4]>(p.d)[thread_x()];
  multiply_bytes32(d, a, b);
}

// a: 32 rows of eight halves, as words; d: [plain or transposed][lane][register].
KERNEL(test_load_matrices, Fragments, 32, 1) {
  SHARED(u32, rows, [32][4]);
  const u32 lane = thread_x();
  for (u32 i = 0; i < 4; i++) rows[lane][i] = p.a[lane * 4 + i];
  warp_barrier();
  u32(*const out)[32][4] = static_cast<u32(*)[32][4]>(p.d);
  load_matrices(out[0][lane], rows[lane]);
  load_matrices_transposed(out[1][lane], rows[lane]);
}

struct Lanes {
  // [shuffle][operand][lane]
  u32 (*out)[32][32];
  float* floats;
  i32* signeds;
  // [whole warp or odd lanes][lane]
  u32 (*votes)[32];
  u32 (*odd)[32];
};

constexpr u32 ODD = 0xaaaaaaaau;

KERNEL(test_lanes, Lanes, 32, 1) {
  const u32 lane = thread_x(), own = lane * 7 + 5;
  for (u32 operand = 0; operand < 32; operand++) {
    p.out[0][operand][lane] = shuffle(own, operand);
    p.out[1][operand][lane] = shuffle_xor(own, operand);
    p.out[2][operand][lane] = shuffle_up(own, operand);
    p.out[3][operand][lane] = shuffle_down(own, operand);
  }
  p.floats[lane] = shuffle_xor(-0.5f * static_cast<float>(lane), 1);
  p.signeds[lane] = shuffle_down(-static_cast<i32>(lane), 2);
  p.votes[0][lane] = ballot(lane % 3 == 0);
  if (ODD >> lane & 1) {
    p.votes[1][lane] = ballot(lane % 3 == 0, ODD);
    for (u32 operand = 0; operand < 32; operand += 2) p.odd[operand][lane] = shuffle_xor(own, operand, ODD);
  }
}

u32 failures;

void expect(bool condition, const char* what) {
  if (condition) return;
  failures++;
  fprintf(stderr, "lanes: %s (%s)\n", what, emulator::failure_text());
}

bool run(const char* name, const void* arguments) {
  emulator::clear_failure();
  const emulator::Launch launch = {emulator::find_kernel(name), arguments, {1, 1, 1}, 32, 0, false};
  return emulator::run_grid(launch);
}

template <typename T>
T* memory(u32 count) {
  return static_cast<T*>(emulator::allocate(count * sizeof(T), true));
}

// No two rows or columns are alike, and every sum is exact in every type.
i32 value_a(u32 row, u32 column) { return static_cast<i32>((row * 37 + column * 11 + row * column * 3) % 31) - 15; }
i32 value_b(u32 row, u32 column) { return static_cast<i32>((row * 13 + column * 29 + row * column * 5) % 23) - 11; }
i32 value_d(u32 row, u32 column) { return static_cast<i32>(row * 8 + column) * 3 - 100; }

u32 as_half(i32 value) { return float_to_half(static_cast<float>(value)); }
u32 as_bfloat(i32 value) { return bits_of(static_cast<float>(value)) >> 16; }
u32 as_byte(i32 value) { return static_cast<u8>(value); }

struct Instruction {
  const char* kernel;
  u32 depth, bits;
  u32 (*encode)(i32 value);
  Place (*a)(u32 group, u32 thread, u32 i);
  Place (*b)(u32 group, u32 thread, u32 i);
};

constexpr Instruction INSTRUCTIONS[] = {
    {"test_multiply_f16", 16, 16, as_half, wide_a, wide_b},
    {"test_multiply_bf16", 16, 16, as_bfloat, wide_a, wide_b},
    {"test_multiply_bytes16", 16, 8, as_byte, bytes16_a, bytes16_b},
    {"test_multiply_bytes32", 32, 8, as_byte, bytes32_a, bytes32_b},
};

template <typename Sum>
void test_product(const Instruction& instruction) {
  const u32 packed = 32 / instruction.bits;
  const u32 a_elements = 16 * instruction.depth / 32, b_elements = 8 * instruction.depth / 32;
  u32* const a = memory<u32>(32 * a_elements / packed);
  u32* const b = memory<u32>(32 * b_elements / packed);
  Sum(*const d)[4] = reinterpret_cast<Sum(*)[4]>(memory<Sum>(32 * 4));
  memset(a, 0, 32 * a_elements / packed * 4);
  memset(b, 0, 32 * b_elements / packed * 4);
  for (u32 lane = 0; lane < 32; lane++) {
    const u32 group = lane >> 2, thread = lane % 4;
    for (u32 i = 0; i < a_elements; i++) {
      const Place place = instruction.a(group, thread, i);
      a[(lane * a_elements + i) / packed] |= instruction.encode(value_a(place.row, place.column)) << i % packed * instruction.bits;
    }
    for (u32 i = 0; i < b_elements; i++) {
      const Place place = instruction.b(group, thread, i);
      b[(lane * b_elements + i) / packed] |= instruction.encode(value_b(place.row, place.column)) << i % packed * instruction.bits;
    }
    for (u32 i = 0; i < 4; i++) {
      const Place place = sums(group, thread, i);
      d[lane][i] = static_cast<Sum>(value_d(place.row, place.column));
    }
  }
  const Fragments arguments = {a, b, d};
  expect(run(instruction.kernel, &arguments), instruction.kernel);
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 i = 0; i < 4; i++) {
      const Place place = sums(lane >> 2, lane % 4, i);
      i32 sum = value_d(place.row, place.column);
      for (u32 k = 0; k < instruction.depth; k++) sum += value_a(place.row, k) * value_b(k, place.column);
      if (d[lane][i] != static_cast<Sum>(sum)) return expect(false, instruction.kernel);
    }
  }
}

void test_load_of_matrices() {
  u32* const words = memory<u32>(32 * 4);
  u32(*const out)[32][4] = reinterpret_cast<u32(*)[32][4]>(memory<u32>(2 * 32 * 4));
  // Row r of the 32, element c: 8 r + c.
  for (u32 i = 0; i < 32 * 4; i++) words[i] = 2 * i | (2 * i + 1) << 16;
  const Fragments arguments = {words, nullptr, out};
  expect(run("test_load_matrices", &arguments), "matrices are loaded");
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 matrix = 0; matrix < 4; matrix++) {
      const u32 row = lane / 4, column = lane % 4 * 2;
      const u32 plain = (matrix * 8 + row) * 8 + column, transposed = (matrix * 8 + column) * 8 + row;
      if (out[0][lane][matrix] != (plain | (plain + 1) << 16)) return expect(false, "ldmatrix");
      if (out[1][lane][matrix] != (transposed | (transposed + 8) << 16)) return expect(false, "ldmatrix.trans");
    }
  }
}

void test_exchanges() {
  const Lanes lanes = {reinterpret_cast<u32(*)[32][32]>(memory<u32>(4 * 32 * 32)), memory<float>(32), memory<i32>(32),
                       reinterpret_cast<u32(*)[32]>(memory<u32>(2 * 32)),
                       reinterpret_cast<u32(*)[32]>(memory<u32>(32 * 32))};
  expect(run("test_lanes", &lanes), "lanes exchange");
  u32 thirds = 0;
  for (u32 lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
  for (u32 lane = 0; lane < 32; lane++) {
    for (u32 operand = 0; operand < 32; operand++) {
      // A lane that has no source keeps its own.
      const u32 up = lane < operand ? lane : lane - operand, down = lane + operand > 31 ? lane : lane + operand;
      const u32 sources[] = {operand, lane ^ operand, up, down};
      for (u32 i = 0; i < 4; i++)
        if (lanes.out[i][operand][lane] != sources[i] * 7 + 5) return expect(false, "shfl.sync");
      if (lane % 2 == 1 && operand % 2 == 0 && lanes.odd[operand][lane] != (lane ^ operand) * 7 + 5)
        return expect(false, "shfl.sync of some lanes");
    }
    expect(lanes.floats[lane] == -0.5f * static_cast<float>(lane ^ 1), "a float crosses");
    expect(lanes.signeds[lane] == -static_cast<i32>(lane < 30 ? lane + 2 : lane), "a signed integer crosses");
    expect(lanes.votes[0][lane] == thirds, "vote.sync.ballot");
    expect(lane % 2 == 0 || lanes.votes[1][lane] == (thirds & ODD), "vote.sync.ballot of some lanes");
  }
}

}  // namespace

// Failures found.
u32 test_lane_layouts() {
  for (const Instruction& instruction : INSTRUCTIONS) {
    if (instruction.bits == 8) {
      test_product<i32>(instruction);
    } else {
      test_product<float>(instruction);
    }
  }
  test_load_of_matrices();
  test_exchanges();
  return failures;
}
