// rope_table and rope. A table row: cosines of all pairs, then sines. Grids: (rows) for the table, (rows, parts)
// for the rotation, whose thread takes a pair of one head.
#include "rope.h"

#include "math.cuh"

KERNEL(rope_table, RopeTable, 128, 1) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  float* out = p.out.data + row * p.out.stride;
  const float position = static_cast<float>(p.positions[row]);
  for (u32 pair = thread_x(); pair < p.pairs; pair += block_threads()) {
    // The angle is rounded to f32 as reference implementations do; its cosine is exact to f32.
    const float angle = position * p.frequencies[pair];
    float sine, cosine;
    sine_cosine(static_cast<double>(angle), sine, cosine);
    out[pair] = cosine * p.scale;
    out[p.pairs + pair] = sine * p.scale;
  }
}

// `first` and `second` give the elements of a head that pair `i` turns.
template <typename First, typename Second>
DEVICE void rotate(const Rope& p, First first, Second second) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const float* table = p.table.data + row * p.table.stride;
  const u32 index = block_y() * block_threads() + thread_x();
  if (index >= p.heads * p.pairs) return;
  const u32 head = index / p.pairs;
  const u32 pair = index % p.pairs;
  float* x = p.x.data + row * p.x.stride + head * p.head_dim;
  float& a = x[first(pair)];
  float& b = x[second(pair)];
  const float cosine = table[pair];
  const float sine = table[p.pairs + pair];
  const float old_a = a;
  const float old_b = b;
  a = old_a * cosine - old_b * sine;
  b = old_b * cosine + old_a * sine;
}

struct Half {
  u32 offset;
  DEVICE u32 operator()(u32 pair) const { return pair + offset; }
};

struct Interleaved {
  u32 offset;
  DEVICE u32 operator()(u32 pair) const { return 2 * pair + offset; }
};

// Pairs (i, i + pairs).
KERNEL(rope_halves, Rope, 256, 1) { rotate(p, Half{0}, Half{p.pairs}); }

// Pairs (2 i, 2 i + 1).
KERNEL(rope_pairs, Rope, 256, 1) { rotate(p, Interleaved{0}, Interleaved{1}); }
