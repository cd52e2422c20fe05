// What a step's sequences are and which of them are split, as every block of every kernel of attention finds out for
// itself; and how queries, keys and values come to shared memory.
#pragma once

#include "attention_math.cuh"

// Query rows of a KV head (tokens times heads of a group) of a sequence that `attend_spans` takes when both
// kernels run: with more, the keys are worth sharing among more than sixteen rows. Long contexts are worth more
// multiprocessors first.
static constexpr u32 SPAN_ROWS = 32;
static constexpr u32 LONG_SPAN_ROWS = 128;
static constexpr u32 LONG_SPAN_RANGES = 8;

// One sequence's part of the step.
struct Slice {
  u32 sequence;
  u32 first_row;
  u32 tokens;
  u32 context;
  u32 first_range;
  u32 ranges;
};

DEVICE u32 first_key(const PagedAttention& p, u32 position) {
  return p.sliding_window == 0 || position < p.sliding_window ? 0 : position + 1 - p.sliding_window;
}

// Reads a sequence; says what is wrong with it, and then it has no rows.
DEVICE Fault read_slice(const PagedAttention& p, u32 sequence, u32 sequences, u32 tokens, Slice& slice) {
  slice = {sequence, 0, 0, 0, 0, 0};
  const i32 begin = p.sequence_starts[sequence], end = p.sequence_starts[sequence + 1];
  const i32 context = p.context_lengths[sequence];
  if ((sequence == 0 && begin != 0) || begin < 0 || begin > end || static_cast<u32>(end) > tokens ||
      (sequence + 1 == sequences && static_cast<u32>(end) != tokens))
    return FAULT_SEQUENCE_STARTS;
  if (context < end - begin || static_cast<u32>(context) > p.capacity) return FAULT_CONTEXT_LENGTH;
  if (begin == end) return FAULT_NONE;
  slice.first_row = static_cast<u32>(begin);
  slice.tokens = static_cast<u32>(end - begin);
  slice.context = static_cast<u32>(context);
  slice.first_range = first_key(p, slice.context - slice.tokens) / p.range_keys;
  slice.ranges = (slice.context + p.range_keys - 1) / p.range_keys - slice.first_range;
  return FAULT_NONE;
}

// Whether `attend_spans` takes the sequence; the arithmetic is the same in both kernels.
DEVICE bool in_spans(const PagedAttention& p, const Slice& slice) {
  const u64 rows = static_cast<u64>(slice.tokens) * p.group;
  return p.every_sequence != 0 || slice.tokens <= 1 || rows <= SPAN_ROWS ||
         (rows <= LONG_SPAN_ROWS && slice.ranges >= LONG_SPAN_RANGES);
}

// Partials of a sequence whose ranges are spread over blocks.
DEVICE u64 partials_of(const PagedAttention& p, const Slice& slice) {
  if (slice.ranges < 2 || !in_spans(p, slice)) return 0;
  return static_cast<u64>(slice.tokens) * p.heads * slice.ranges;
}

DEVICE u64 warp_sum(u64 value) {
#pragma unroll
  for (u32 distance = WARP / 2; distance > 0; distance /= 2) {
    const u64 low = shuffle_xor(static_cast<u32>(value), distance);
    const u64 high = shuffle_xor(static_cast<u32>(value >> 32), distance);
    value += high << 32 | low;
  }
  return value;
}

// Whether a sequence is split, and where its partials begin: those of the sequences before it come first, as far as
// the memory goes. All lanes of a warp call it.
DEVICE bool split_at(const PagedAttention& p, const Slice& slice, u32 sequences, u32 tokens, u64& base) {
  u64 before = 0;
  for (u32 s = lane_index(); s < slice.sequence; s += WARP) {
    Slice other;
    read_slice(p, s, sequences, tokens, other);
    before += partials_of(p, other);
  }
  base = warp_sum(before);
  const u64 own = partials_of(p, slice);
  return own != 0 && base + own <= p.partials_max;
}

DEVICE float* partial_at(const PagedAttention& p, const Slice& slice, u64 base, u32 token, u32 head, u32 range) {
  return p.partials + (base + (static_cast<u64>(token) * p.heads + head) * slice.ranges + range) * p.partial_floats;
}

// The rows of a lane: packed rows `first` + g and + g + 8 of the slice, tokens in order, the heads of a group together.
DEVICE LaneRows lane_rows(const PagedAttention& p, const Slice& slice, u32 kv_head, u32 first, const float* scales) {
  LaneRows rows;
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const u32 inside = lane_index() / 4 + i * 8;
    const u32 row = first + inside;
    const u32 token = row / p.group;
    rows.token[i] = slice.first_row + token;
    rows.head[i] = kv_head * p.group + row % p.group;
    rows.first[i] = rows.last[i] = 0;
    rows.factor[i] = p.score_scale * scales[inside];
    if (token >= slice.tokens) continue;
    rows.last[i] = slice.context - slice.tokens + token + 1;
    rows.first[i] = first_key(p, rows.last[i] - 1);
  }
  return rows;
}

// Keys [first, last) that any of `count` packed rows from `row` sees.
DEVICE void seen_keys(const PagedAttention& p, const Slice& slice, u32 row, u32 count, u32& first, u32& last) {
  const u32 begin = slice.context - slice.tokens;
  const u32 token = row / p.group;
  first = last = 0;
  if (token >= slice.tokens) return;
  first = first_key(p, begin + token);
  last = begin + smaller((row + count - 1) / p.group, slice.tokens - 1) + 1;
}

// Brings `count` rows of queries to shared memory, split as the products want them: packed rows `first` + i of the
// slice to row `to` + i of the tile, zeros behind the head and in rows that do not exist. By one warp.
template <typename Cores, u32 D>
DEVICE void load_queries(const PagedAttention& p, const Slice& slice, u32 kv_head, u32 first, u32 to, u32 count, u8* tile, float* scales) {
  constexpr u32 VECTORS = (D + 127) / 128, AT_ONCE = 4;
  const u32 lane = lane_index();
  for (u32 begin = 0; begin < count; begin += AT_ONCE) {
    float v[AT_ONCE][VECTORS][4];
#pragma unroll
    for (u32 r = 0; r < AT_ONCE; r++) {
      const u32 row = first + begin + r;
      const u32 token = row / p.group;
      const float* source = p.q.data + (slice.first_row + token) * p.q.stride + (kv_head * p.group + row % p.group) * static_cast<u64>(p.head_dim);
      const u32 width = token < slice.tokens ? p.head_dim : 0;
#pragma unroll
      for (u32 i = 0; i < VECTORS; i++) {
        const u32 dim = (i * WARP + lane) * 4;
        Float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
        if (p.q_vectors != 0) {
          if (dim < width) four = *reinterpret_cast<const Float4*>(source + dim);
        } else {
          four.x = dim < width ? source[dim] : 0.0f;
          four.y = dim + 1 < width ? source[dim + 1] : 0.0f;
          four.z = dim + 2 < width ? source[dim + 2] : 0.0f;
          four.w = dim + 3 < width ? source[dim + 3] : 0.0f;
        }
        v[r][i][0] = four.x;
        v[r][i][1] = four.y;
        v[r][i][2] = four.z;
        v[r][i][3] = four.w;
      }
    }
#pragma unroll
    for (u32 r = 0; r < AT_ONCE; r++) {
      float scale = 1.0f;
      if (Cores::SCALED) {
        float top = 0.0f;
#pragma unroll
        for (u32 i = 0; i < VECTORS; i++)
#pragma unroll
          for (u32 e = 0; e < 4; e++) top = larger(top, v[r][i][e] < 0.0f ? -v[r][i][e] : v[r][i][e]);
        const u32 exponent = larger(smaller(bits_of(warp_max(top)) >> 23, 253u), 1u);
        scale = float_of(exponent << 23);
        const float inverse = float_of((254 - exponent) << 23);
#pragma unroll
        for (u32 i = 0; i < VECTORS; i++)
#pragma unroll
          for (u32 e = 0; e < 4; e++) v[r][i][e] *= inverse;
      }
      if (lane == 0) scales[to + begin + r] = scale;
#pragma unroll
      for (u32 i = 0; i < VECTORS; i++) {
        const u32 dim = (i * WARP + lane) * 4;
        if (dim < D) Cores::template store_query<D>(tile, to + begin + r, dim, v[r][i]);
      }
    }
  }
}

// The row of the cache that holds a key, or NOWHERE for a key outside [first, last) or in no block.
DEVICE u32 cache_row(const PagedAttention& p, const Slice& slice, u32 kv_head, u32 key, u32 first, u32 last) {
  if (key < first || key >= last) return NOWHERE;
  const i32 block = p.block_tables[slice.sequence * p.block_table_stride + key / p.block_size];
  if (block < 0 || static_cast<u32>(block) >= p.blocks) {
    report_fault(p.tokens.step, p.op, FAULT_BLOCK_TABLE);
    return NOWHERE;
  }
  return (static_cast<u32>(block) * p.kv_heads + kv_head) * p.block_size + key % p.block_size;
}

// Begins to copy 16 bytes of a row of the cache; zeros behind the row's end and for NOWHERE.
template <typename Cores>
DEVICE void copy_chunk(const PagedAttention& p, const u8* cache, u8* target, u32 row, u32 chunk) {
  const bool there = row != NOWHERE && chunk * 16 < p.row_bytes;
  const u8* source = cache + (there ? static_cast<u64>(row) * p.row_bytes + chunk * 16 : 0);
  if (p.cache_vectors != 0) return copy_async16(target, source, there ? 16 : 0);
  // Rows of no whole number of vectors.
#pragma unroll 1
  for (u32 at = 0; at < 16; at += Cores::BYTES) {
    const bool inside = there && chunk * 16 + at < p.row_bytes;
    if (Cores::BYTES == 4) {
      *reinterpret_cast<u32*>(target + at) = inside ? *reinterpret_cast<const u32*>(source + at) : 0;
    } else if (Cores::BYTES == 1) {
      target[at] = inside ? source[at] : u8(0);
    } else {
      *reinterpret_cast<u16*>(target + at) = inside ? *reinterpret_cast<const u16*>(source + at) : u16(0);
    }
  }
}

// Two neighbouring elements of a row of a head's width.
DEVICE void store_pair(const PagedAttention& p, float* row, u32 dim, float a, float b, bool pairs) {
  if (dim >= p.head_dim) return;
  if (pairs) {
    *reinterpret_cast<Float2*>(row + dim) = {a, b};
  } else {
    row[dim] = a;
    if (dim + 1 < p.head_dim) row[dim + 1] = b;
  }
}
