// Attention of few rows to many keys: decoding, and short continuations of long contexts. A block takes up to
// sixteen rows of one KV head of one sequence and a span of its ranges of keys; its four warps take a strip of a range
// each. Every warp has a ring of pieces, so that its copies of later keys and values run while it works on earlier
// ones: a piece is a quarter of its strip's keys, or the values of any strip in the quarter of the dimensions that
// the warp sums. Weights pass through shared memory between the two.
//
// At 128 dimensions of 16 bits a piece has 4 KiB. Of the three in each of four warps, 48 KiB in a block, one is worked on
// and two are under way: 32 KiB. Three blocks of 74 KiB share an H100's multiprocessor, two an A100's. With 8 bits
// 16 KiB are under way in a block of 50, and their registers let three share a multiprocessor of either.
#pragma once

#include "attention_step.cuh"

template <typename Cores, u32 D, u32 STRIP>
struct Spans {
  static constexpr u32 RANGE = STRIPS * STRIP, WARPS = 4, PIECES = 2 * STRIPS;
  static constexpr u32 KEYS = STRIP / STRIPS, SLICE = D / WARPS, TILES = SLICE / 8;
  static constexpr u32 PIECE_BYTES = STRIP * SLICE * Cores::BYTES;
  static constexpr u32 KEY_CHUNKS = D * Cores::BYTES / 16, VALUE_CHUNKS = SLICE * Cores::BYTES / 16;
  static constexpr u32 STEPS = STRIP / 16, STEP_WORDS = 2 * WARP * 4;
  // Keys of a range whose places a thread finds.
  static constexpr u32 EACH = RANGE / (WARPS * WARP);

  const PagedAttention& p;
  const Slice& slice;
  const u32 kv_head;
  u8* const queries;
  // [STRIPS][STEPS][2][WARP][4]
  u32* const weights;
  u8* const ring;
  // [2][RANGE]: where the keys of even and of odd ranges lie.
  u32* const places;
  // [2][STRIPS][TILE_ROWS]: each strip's maxima, then its sums.
  float* const strips;
  // Ranges of this block, and keys that its rows see.
  u32 first_range, last_range, first, last;

  DEVICE u8* slot(u32 piece) const { return ring + (warp_index() * p.ring_pieces + piece % p.ring_pieces) * PIECE_BYTES; }

  // Whether any row sees a key of the strip.
  DEVICE bool is_seen(u32 range, u32 strip) const {
    const u32 begin = range * RANGE + strip * STRIP;
    return begin < last && begin + STRIP > first;
  }

  // Begins the copy of a piece, counted from the block's first; a group of copies even when there is none.
  DEVICE void issue(u32 piece) const {
    const u32 range = first_range + piece / PIECES, part = piece % PIECES;
    const bool is_key = part < STRIPS;
    const u32 strip = is_key ? warp_index() : part - STRIPS;
    if (range < last_range && is_seen(range, strip)) {
      const u32 lane = opaque(lane_index());
      const u32* rows = places + range % 2 * RANGE + strip * STRIP;
      u8* target = slot(piece);
      if (is_key) {
#pragma unroll
        for (u32 i = 0; i < PIECE_BYTES / 16 / WARP; i++) {
          const u32 key = (i * WARP + lane) / KEY_CHUNKS, chunk = (i * WARP + lane) % KEY_CHUNKS;
          copy_chunk<Cores>(p, p.k_cache, target + swizzled<KEY_CHUNKS>(key, chunk), rows[part * KEYS + key], chunk);
        }
      } else {
#pragma unroll
        for (u32 i = 0; i < PIECE_BYTES / 16 / WARP; i++) {
          const u32 key = (i * WARP + lane) / VALUE_CHUNKS, chunk = (i * WARP + lane) % VALUE_CHUNKS;
          copy_chunk<Cores>(p, p.v_cache, target + swizzled<VALUE_CHUNKS>(key, chunk), rows[key], warp_index() * VALUE_CHUNKS + chunk);
        }
      }
    }
    copy_async_commit();
  }

  // Waits for a piece and begins the copy that the place of the one before it is free for.
  DEVICE const u8* next(u32 piece) const {
    if (p.ring_pieces == 2) copy_async_wait<0>(); else copy_async_wait<1>();
    warp_barrier();
    issue(piece + p.ring_pieces - 1);
    return slot(piece);
  }

  DEVICE u32 place_of(u32 range, u32 i) const {
    return range < last_range ? cache_row(p, slice, kv_head, range * RANGE + i, first, last) : NOWHERE;
  }

  // Scores of the warp's strip and what becomes of them: weights, maximum and sum.
  DEVICE void score_strip(u32 range, u32 piece, const LaneRows& rows) const {
    float scores[STRIP / 8][4];
    const u32 own = warp_index(), lane = opaque(lane_index());
    const bool seen = is_seen(range, own);
#pragma unroll
    for (u32 i = 0; i < STRIPS; i++) {
      const u8* keys = next(piece + i);
      if (seen) Cores::template score<D, KEYS / 8>(scores + i * (KEYS / 8), queries, keys, p.head_dim, lane);
    }
    if (!seen) return;
    Softmax softmax;
    weigh<Cores>(p, rows, range * RANGE + own * STRIP, scores, softmax);
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
      u32 words[8];
      Cores::pack_weights(scores[2 * step], scores[2 * step + 1], words);
      Words4* target = reinterpret_cast<Words4*>(weights + (own * STEPS + step) * STEP_WORDS) + lane;
      target[0] = {words[0], words[1], words[2], words[3]};
      target[WARP] = {words[4], words[5], words[6], words[7]};
    }
    if (lane % 4 != 0) return;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      strips[own * TILE_ROWS + lane / 4 + i * 8] = softmax.maximum[i];
      strips[(STRIPS + own) * TILE_ROWS + lane / 4 + i * 8] = softmax.sum[i];
    }
  }

  // Folds the strips' values in the warp's dimensions into the range.
  DEVICE void add_strips(u32 range, u32 piece, Softmax& softmax, float (&sums)[TILES][4]) const {
#pragma unroll 1
    for (u32 strip = 0; strip < STRIPS; strip++) {
      const u32 lane = opaque(lane_index());
      const u8* values = next(piece + STRIPS + strip);
      if (!is_seen(range, strip)) continue;
      float later[TILES][4];
#pragma unroll
      for (u32 n = 0; n < TILES; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) later[n][i] = 0.0f;
#pragma unroll
      for (u32 step = 0; step < STEPS; step++) {
        const u32* shared = weights + (strip * STEPS + step) * STEP_WORDS;
        const Words4 high = reinterpret_cast<const Words4*>(shared)[lane];
        const Words4 low = reinterpret_cast<const Words4*>(shared)[WARP + lane];
        const u32 words[8] = {high.x, high.y, high.z, high.w, low.x, low.y, low.z, low.w};
#pragma unroll
        for (u32 pair = 0; pair < TILES / 2; pair++)
          Cores::template add_values<VALUE_CHUNKS>(later + pair * 2, words, shared, values, step, pair, lane);
      }
      float maximum[2], sum[2], keep[2], add[2];
#pragma unroll
      for (u32 i = 0; i < 2; i++) {
        maximum[i] = strips[strip * TILE_ROWS + lane / 4 + i * 8];
        sum[i] = strips[(STRIPS + strip) * TILE_ROWS + lane / 4 + i * 8];
      }
      softmax.fold(maximum, sum, keep, add);
#pragma unroll
      for (u32 n = 0; n < TILES; n++) fold_sums(sums[n], later[n], keep, add);
    }
  }

  DEVICE void store_partial(const LaneRows& rows, u64 base, u32 range, const Softmax& softmax, const float (&sums)[TILES][4]) const {
    const u32 t = lane_index() % 4;
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      if (rows.last[i] == 0) continue;
      float* row = partial_at(p, slice, base, rows.token[i] - slice.first_row, rows.head[i], range - slice.first_range);
#pragma unroll
      for (u32 n = 0; n < TILES; n++)
        store_pair(p, row, warp_index() * SLICE + Cores::column(n, t), sums[n][i * 2], sums[n][i * 2 + 1], true);
      if (warp_index() != 0 || t != 0) continue;
      row[p.partial_floats - 4] = softmax.maximum[i];
      row[p.partial_floats - 3] = softmax.sum[i];
    }
  }

  DEVICE void store_rows(const LaneRows& rows, const Softmax& softmax, const float (&sums)[TILES][4]) const {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      if (rows.last[i] == 0) continue;
      const float factor = last_factor(p, rows.head[i], softmax.maximum[i], softmax.sum[i]);
      float* row = p.out.data + rows.token[i] * p.out.stride + rows.head[i] * static_cast<u64>(p.head_dim);
#pragma unroll
      for (u32 n = 0; n < TILES; n++)
        store_pair(p, row, warp_index() * SLICE + Cores::column(n, lane_index() % 4), sums[n][i * 2] * factor, sums[n][i * 2 + 1] * factor, p.out_pairs != 0);
    }
  }

  // Begins to copy; what the block does next runs meanwhile.
  DEVICE void begin() const {
#pragma unroll
    for (u32 i = 0; i < EACH; i++)
      places[first_range % 2 * RANGE + i * WARPS * WARP + thread_x()] = place_of(first_range, i * WARPS * WARP + thread_x());
    barrier();
    for (u32 piece = 0; piece + 1 < p.ring_pieces; piece++) issue(piece);
  }

  // All ranges of the block for the rows that `lane_rows` gave; partials to `base` when the sequence is split.
  DEVICE void run(const LaneRows& rows, bool split, u64 base) const {
    const u32 thread = thread_x();
    Softmax total;
    float total_sums[TILES][4];
    total.clear();
#pragma unroll
    for (u32 n = 0; n < TILES; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) total_sums[n][i] = 0.0f;
#pragma unroll 1
    for (u32 range = first_range; range < last_range; range++) {
      const u32 piece = (range - first_range) * PIECES;
      u32 later_places[EACH];
#pragma unroll
      for (u32 i = 0; i < EACH; i++) later_places[i] = place_of(range + 1, i * WARPS * WARP + thread);
      score_strip(range, piece, rows);
#pragma unroll
      for (u32 i = 0; i < EACH; i++) places[(range + 1) % 2 * RANGE + i * WARPS * WARP + thread] = later_places[i];
      barrier();
      Softmax softmax;
      float sums[TILES][4];
      softmax.clear();
#pragma unroll
      for (u32 n = 0; n < TILES; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[n][i] = 0.0f;
      add_strips(range, piece, softmax, sums);
      if (split) {
        store_partial(rows, base, range, softmax, sums);
      } else {
        float keep[2], add[2];
        total.fold(softmax.maximum, softmax.sum, keep, add);
#pragma unroll
        for (u32 n = 0; n < TILES; n++) fold_sums(total_sums[n], sums[n], keep, add);
      }
      // The weights and the strips' softmax are written again.
      barrier();
    }
    copy_async_wait<0>();
    if (!split) store_rows(rows, total, total_sums);
  }
};

// Grid (spans, KV heads times tiles of one token's rows, sequences); a sequence of more rows has its tiles one after
// the other. The first blocks of each sequence tell what is wrong with it.
template <typename Cores, u32 D, u32 STRIP>
DEVICE void attend_spans(const PagedAttention& p) {
  typedef Spans<Cores, D, STRIP> Work;
  DYNAMIC_SHARED(u8, memory);
  SHARED(u32, places, [2 * Work::RANGE]);
  SHARED(float, strips, [2 * STRIPS * TILE_ROWS]);
  SHARED(float, scales, [TILE_ROWS]);
  const u32 tokens = rows_of(p.tokens), sequences = rows_of(p.sequences), sequence = block_z();
  const bool tells = block_x() == 0 && block_y() == 0 && thread_x() == 0;
  if (sequence >= sequences) {
    if (sequence == 0 && tells && (tokens != 0 || p.sequence_starts[0] != 0)) report_fault(p.tokens.step, p.op, FAULT_SEQUENCE_STARTS);
    return;
  }
  Slice slice;
  const Fault fault = read_slice(p, sequence, sequences, tokens, slice);
  if (tells && fault != FAULT_NONE) report_fault(p.tokens.step, p.op, fault);
  if (slice.tokens == 0 || !in_spans(p, slice)) return;
  u64 base = 0;
  const bool split = grid_x() > 1 && split_at(p, slice, sequences, tokens, base);
  const u32 spans = split ? smaller(grid_x(), slice.ranges) : 1;
  const u32 each = (slice.ranges + spans - 1) / spans;
  if (block_x() >= spans || block_x() * each >= slice.ranges) return;
  const u32 first_range = slice.first_range + block_x() * each;
  const u32 last_range = smaller(first_range + each, slice.first_range + slice.ranges);

  const u32 kv_head = block_y() % p.kv_heads, rows = slice.tokens * p.group;
  const u32 stride = grid_y() / p.kv_heads * TILE_ROWS;
  for (u32 row = block_y() / p.kv_heads * TILE_ROWS; row < rows; row += stride) {
    u8* const queries = memory;
    u32* const weights = reinterpret_cast<u32*>(queries + Cores::template QUERY_BYTES<D>);
    u8* const ring = reinterpret_cast<u8*>(weights + STRIPS * Work::STEPS * Work::STEP_WORDS);
    constexpr u32 EACH = TILE_ROWS / Work::WARPS;
    Work work = {p, slice, kv_head, queries, weights, ring, places, strips, first_range, last_range, 0, 0};
    seen_keys(p, slice, row, TILE_ROWS, work.first, work.last);
    work.begin();
    load_queries<Cores, D>(p, slice, kv_head, row + warp_index() * EACH, warp_index() * EACH, EACH, queries, scales);
    barrier();
    work.run(lane_rows(p, slice, kv_head, row, scales), split, base);
  }
}

// The partials of split sequences to rows: a warp per row, grid (groups of four heads, tokens in turn, sequences).
DEVICE void merge_partials(const PagedAttention& p) {
  const u32 tokens = rows_of(p.tokens), sequences = rows_of(p.sequences), lane = lane_index();
  if (block_z() >= sequences) return;
  Slice slice;
  if (read_slice(p, block_z(), sequences, tokens, slice) != FAULT_NONE) return;
  u64 base = 0;
  const u32 head = block_x() * (block_threads() / WARP) + warp_index();
  if (head >= p.heads || !split_at(p, slice, sequences, tokens, base)) return;
  for (u32 token = block_y(); token < slice.tokens; token += grid_y()) {
    const float* row = partial_at(p, slice, base, token, head, 0);
    float maximum = -infinity(), sum = 0.0f;
    float sums[2][4] = {};
    for (u32 begin = 0; begin < slice.ranges; begin += 4) {
      Float4 later[4][2];
      float later_maximum[4], later_sum[4];
#pragma unroll
      for (u32 r = 0; r < 4; r++) {
        const float* partial = row + static_cast<u64>(begin + r) * p.partial_floats;
        later_maximum[r] = -infinity();
        later_sum[r] = 0.0f;
        if (begin + r < slice.ranges) {
          later_maximum[r] = partial[p.partial_floats - 4];
          later_sum[r] = partial[p.partial_floats - 3];
        }
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
          const u32 dim = (i * WARP + lane) * 4;
          later[r][i] = {0.0f, 0.0f, 0.0f, 0.0f};
          if (begin + r < slice.ranges && dim < p.head_dim) later[r][i] = *reinterpret_cast<const Float4*>(partial + dim);
        }
      }
#pragma unroll
      for (u32 r = 0; r < 4; r++) {
        const float top = larger(maximum, later_maximum[r]);
        const float from = top == -infinity() ? 0.0f : top;
        const float keep = exp2_fast(maximum - from), add = exp2_fast(later_maximum[r] - from);
        maximum = top;
        sum = fused_multiply_add(later_sum[r], add, sum * keep);
#pragma unroll
        for (u32 i = 0; i < 2; i++) {
          sums[i][0] = fused_multiply_add(later[r][i].x, add, sums[i][0] * keep);
          sums[i][1] = fused_multiply_add(later[r][i].y, add, sums[i][1] * keep);
          sums[i][2] = fused_multiply_add(later[r][i].z, add, sums[i][2] * keep);
          sums[i][3] = fused_multiply_add(later[r][i].w, add, sums[i][3] * keep);
        }
      }
    }
    const float factor = last_factor(p, head, maximum, sum);
    float* out = p.out.data + (slice.first_row + token) * p.out.stride + head * static_cast<u64>(p.head_dim);
#pragma unroll
    for (u32 i = 0; i < 2; i++)
#pragma unroll
      for (u32 e = 0; e < 4; e += 2)
        store_pair(p, out, (i * WARP + lane) * 4 + e, sums[i][e] * factor, sums[i][e + 1] * factor, p.out_pairs != 0);
  }
}
