// What products need around those that cuBLASLt computes: rows of x as 16-bit floats, block-quantised weights as
// bfloat16, and scales, biases and residuals behind them. All of it moves bytes and little else.
//
// A row is one rounded 16-bit float per element, or three whose sum is the element. Beside half-precision weights it
// is first brought to between 2^14 and 2^15 by a power of two, so that nothing overflows and little falls below what
// a half can hold.
#include "matmul_library.h"

#include "matmul_rows.cuh"

static constexpr u32 THREADS = 256;
static constexpr u32 PARTS_OF_A_ROW = 3;
// Bits of a half's fraction, the first included: the second and third part are multiplied by this once and twice.
static constexpr float HALF_PART = 2048.0f;

struct alignas(8) Words {
  u32 low, high;
};

struct Bfloat {
  static constexpr bool IS_SCALED = false;
  static DEVICE u32 round(float x, float y) { return pack_bf16(x, y); }
  // Takes the upper bits of both, and leaves the rest.
  static DEVICE u32 take(float& x, float& y) { return take_high(x, y); }
};

struct Half {
  static constexpr bool IS_SCALED = true;
  static DEVICE u32 round(float x, float y) { return pack_f16(x, y); }
  static DEVICE u32 take(float& x, float& y) {
    const u32 pair = pack_f16(x, y);
    x = (x - half_to_float(static_cast<u16>(pair))) * HALF_PART;
    y = (y - half_to_float(static_cast<u16>(pair >> 16))) * HALF_PART;
    return pair;
  }
};

// Biased exponents of the scale of a row and of what undoes it. The scale brings `largest` to 2^14 and above, as far
// as both are normal floats.
DEVICE u32 scale_exponent(u32 largest) {
  const u32 wanted = 268 - (largest >> 23);
  return wanted < 253 ? wanted : 253;
}

template <typename Form, u32 COUNT>
DEVICE void write_row(const LibraryRows& p) {
  SHARED(u32, partial, [THREADS / WARP]);
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const float* x = p.x.data + row * p.x.stride;
  float scale = 1.0f;
  if (Form::IS_SCALED) {
    u32 largest = 0;
    for (u32 at = thread_x() * 4; at < p.k; at += block_threads() * 4) {
      const Float4 v = load_four(x, at, p.k, p.vectors != 0);
      largest = larger(largest, larger(larger(magnitude(v.x), magnitude(v.y)), larger(magnitude(v.z), magnitude(v.w))));
    }
#pragma unroll
    for (u32 distance = 1; distance < WARP; distance *= 2) largest = larger(largest, shuffle_xor(largest, distance));
    if (lane_index() == 0) partial[warp_index()] = largest;
    barrier();
    for (u32 warp = 0; warp < block_threads() / WARP; warp++) largest = larger(largest, partial[warp]);
    const u32 exponent = scale_exponent(largest);
    scale = float_of(exponent << 23);
    if (thread_x() == 0) p.scales[row] = float_of((254 - exponent) << 23);
  }
  u16* const out = p.out + row * p.row_stride;
  for (u32 at = thread_x() * 4; at < p.row_stride; at += block_threads() * 4) {
    Float4 v = load_four(x, at, p.k, p.vectors != 0);
    if (Form::IS_SCALED) v = {v.x * scale, v.y * scale, v.z * scale, v.w * scale};
    if (COUNT == 1) {
      *reinterpret_cast<Words*>(out + at) = {Form::round(v.x, v.y), Form::round(v.z, v.w)};
    } else {
#pragma unroll
      for (u32 part = 0; part < COUNT; part++)
        *reinterpret_cast<Words*>(out + part * p.part_stride + at) = {Form::take(v.x, v.y), Form::take(v.z, v.w)};
    }
  }
}

KERNEL(library_rows_bf16, LibraryRows, THREADS, 4) { write_row<Bfloat, 1>(p); }
KERNEL(library_rows_bf16_parts, LibraryRows, THREADS, 4) { write_row<Bfloat, PARTS_OF_A_ROW>(p); }
KERNEL(library_rows_f16, LibraryRows, THREADS, 4) { write_row<Half, 1>(p); }
KERNEL(library_rows_f16_parts, LibraryRows, THREADS, 4) { write_row<Half, PARTS_OF_A_ROW>(p); }

// Grid (rows, parts of a row); a thread has an octet.
template <typename Format>
DEVICE void write_weights(const LibraryWeights& p) {
  const u32 octet = block_y() * block_threads() + thread_x();
  if (octet * 8 >= p.k) return;
  const u8* block = p.data + block_x() * p.row_bytes + octet * 8 / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
  const Octet values = Format::octet(block, octet * 8 % Format::BLOCK_ELEMENTS / 8);
  u32 words[4];
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    const float low = static_cast<float>(level_at(values.levels, 2 * i));
    const float high = static_cast<float>(level_at(values.levels, 2 * i + 1));
    words[i] = pack_bf16(fused_multiply_add(values.scale, low, values.minimum),
                         fused_multiply_add(values.scale, high, values.minimum));
  }
  *reinterpret_cast<Words4*>(p.out + block_x() * p.row_stride + octet * 8) = {words[0], words[1], words[2], words[3]};
}

#define WEIGHTS(name, Format) \
  KERNEL(library_weights_##name, LibraryWeights, THREADS, 4) { write_weights<Format>(p); }
FOR_EACH_BLOCK_FORMAT(WEIGHTS)

// Grid (rows, parts of a row).
KERNEL(library_finish, LibraryFinish, THREADS, 4) {
  const u32 row = block_x();
  const u32 column = block_y() * block_threads() + thread_x();
  if (row >= rows_of(p.rows) || column >= p.columns) return;
  float value = p.sums.data[row * p.sums.stride + column];
  if (p.scales != nullptr) value *= p.scales[row];
  if (p.bias != nullptr) value += p.bias[column];
  if (p.residual.data != nullptr) value += p.residual.data[row * p.residual.stride + column];
  p.out.data[row * p.out.stride + column] = value;
}
