// Attention of many rows: prompts and their chunks. A block takes a tile of rows of one KV head of one sequence,
// sixteen to a warp, and goes through the strips of keys that they see. While the block multiplies with a strip's
// values, the next strip's keys are on their way, and the other way round.
//
// At 128 dimensions of 16 bits and four warps: 32 KiB of keys and values and 32 KiB of queries (48 of bf16) in shared
// memory, so two blocks share a multiprocessor from an A100 on.
#pragma once

#include "attention_step.cuh"

template <typename Cores, u32 D, u32 STRIP>
struct Tiles {
  static constexpr u32 CHUNKS = D * Cores::BYTES / 16, STRIP_BYTES = STRIP * D * Cores::BYTES;
  static constexpr u32 STEPS = STRIP / 16, STEP_WORDS = 2 * WARP * 4, PLACES_EACH = STRIP / WARP;

  const PagedAttention& p;
  const Slice& slice;
  const u32 kv_head;
  u8* const keys;
  u8* const values;
  // [2][STRIP]: where the keys of even and of odd strips lie.
  u32* const places;
  // [STEPS][2][WARP][4] of this warp; for cores that pass weights through shared memory.
  u32* const weights;
  // Keys that rows of the block see, and rows of the warp.
  u32 first, last, own_first, own_last;

  DEVICE u32 place_of(u32 strip, u32 i) const {
    return i < STRIP ? cache_row(p, slice, kv_head, strip * STRIP + i, first, last) : NOWHERE;
  }

  // Begins the copy of a strip; a group of copies even past the last one.
  DEVICE void issue(u32 strip, const u8* cache, u8* target) const {
    if (strip * STRIP < last) {
      const u32* rows = places + strip % 2 * STRIP;
      for (u32 i = opaque(thread_x()); i < STRIP * CHUNKS; i += block_threads())
        copy_chunk<Cores>(p, cache, target + swizzled<CHUNKS>(i / CHUNKS, i % CHUNKS), rows[i / CHUNKS], i % CHUNKS);
    }
    copy_async_commit();
  }

  // Folds a strip into the range, sixteen dimensions at a time.
  DEVICE void add_strip(const float (&scores)[STRIP / 8][4], const Softmax& strip, Softmax& softmax, float (&sums)[D / 8][4]) const {
    const u32 lane = opaque(lane_index());
    u32 words[STEPS][8];
#pragma unroll
    for (u32 step = 0; step < STEPS; step++) {
      Cores::pack_weights(scores[2 * step], scores[2 * step + 1], words[step]);
      if (!Cores::SHARES_WEIGHTS) continue;
      Words4* target = reinterpret_cast<Words4*>(weights + step * STEP_WORDS) + lane;
      target[0] = {words[step][0], words[step][1], words[step][2], words[step][3]};
      target[WARP] = {words[step][4], words[step][5], words[step][6], words[step][7]};
    }
    if (Cores::SHARES_WEIGHTS) warp_barrier();
    float keep[2], add[2];
    softmax.fold(strip.maximum, strip.sum, keep, add);
#pragma unroll
    for (u32 pair = 0; pair < D / 16; pair++) {
      if (pair * 16 >= p.head_dim) break;
      float later[2][4] = {};
#pragma unroll
      for (u32 step = 0; step < STEPS; step++)
        Cores::template add_values<CHUNKS>(later, words[step], weights + step * STEP_WORDS, values, step, pair, lane);
      fold_sums(sums[2 * pair], later[0], keep, add);
      fold_sums(sums[2 * pair + 1], later[1], keep, add);
    }
    if (Cores::SHARES_WEIGHTS) warp_barrier();
  }

  DEVICE float* out_row(const LaneRows& rows, u32 i) const {
    return p.out.data + rows.token[i] * p.out.stride + rows.head[i] * static_cast<u64>(p.head_dim);
  }

  // Folds a range into the row. Until the last range, the row's sums wait in `out`, where every lane finds its own
  // again: once in 256 keys that costs less than the registers would.
  DEVICE void add_range(const LaneRows& rows, bool begun, bool ends, Softmax& total, const Softmax& softmax, float (&sums)[D / 8][4]) const {
    const u32 t = opaque(lane_index()) % 4;
    float keep[2], add[2];
    total.fold(softmax.maximum, softmax.sum, keep, add);
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      if (rows.last[i] == 0) continue;
      float* row = out_row(rows, i);
      const float factor = ends ? last_factor(p, rows.head[i], total.maximum[i], total.sum[i]) : 1.0f;
#pragma unroll
      for (u32 n = 0; n < D / 8; n++) {
        const u32 dim = Cores::column(n, t);
        float old[2] = {0.0f, 0.0f};
        if (begun && p.out_pairs != 0 && dim < p.head_dim) {
          const Float2 pair = *reinterpret_cast<const Float2*>(row + dim);
          old[0] = pair.x;
          old[1] = pair.y;
        } else if (begun && p.out_pairs == 0) {
          old[0] = dim < p.head_dim ? row[dim] : 0.0f;
          old[1] = dim + 1 < p.head_dim ? row[dim + 1] : 0.0f;
        }
        const float a = fused_multiply_add(sums[n][i * 2], add[i], old[0] * keep[i]);
        const float b = fused_multiply_add(sums[n][i * 2 + 1], add[i], old[1] * keep[i]);
        store_pair(p, row, dim, a * factor, b * factor, p.out_pairs != 0);
      }
    }
  }

  // Begins to copy; what the block does next runs meanwhile.
  DEVICE void begin() const {
    const u32 strip = first / STRIP;
    for (u32 i = thread_x(); i < STRIP; i += block_threads()) places[strip % 2 * STRIP + i] = place_of(strip, i);
    barrier();
    issue(strip, p.k_cache, keys);
    issue(strip, p.v_cache, values);
  }

  DEVICE void run(const LaneRows& rows, const u8* queries) const {
    const u32 end = (last + STRIP - 1) / STRIP;
    Softmax total, softmax;
    total.clear();
    softmax.clear();
    float sums[D / 8][4];
    bool begun = false;
#pragma unroll
    for (u32 n = 0; n < D / 8; n++)
#pragma unroll
      for (u32 i = 0; i < 4; i++) sums[n][i] = 0.0f;
#pragma unroll 1
    for (u32 strip = first / STRIP; strip < end; strip++) {
      u32 later_places[PLACES_EACH];
#pragma unroll
      for (u32 i = 0; i < PLACES_EACH; i++) later_places[i] = place_of(strip + 1, i * block_threads() + thread_x());
      copy_async_wait<1>();
      barrier();
      const bool seen = strip * STRIP < own_last && strip * STRIP + STRIP > own_first;
      float scores[STRIP / 8][4];
      if (seen) Cores::template score<D, STRIP / 8>(scores, queries, keys, p.head_dim, opaque(lane_index()));
#pragma unroll
      for (u32 i = 0; i < PLACES_EACH; i++) {
        const u32 at = i * block_threads() + thread_x();
        if (at < STRIP) places[(strip + 1) % 2 * STRIP + at] = later_places[i];
      }
      barrier();
      issue(strip + 1, p.k_cache, keys);
      Softmax later;
      if (seen) weigh<Cores>(p, rows, strip * STRIP, scores, later);
      copy_async_wait<1>();
      barrier();
      if (seen) add_strip(scores, later, softmax, sums);
      barrier();
      issue(strip + 1, p.v_cache, values);
      if ((strip + 1) % STRIPS != 0 && strip + 1 != end) continue;
      add_range(rows, begun, strip + 1 == end, total, softmax, sums);
      begun = true;
      softmax.clear();
#pragma unroll
      for (u32 n = 0; n < D / 8; n++)
#pragma unroll
        for (u32 i = 0; i < 4; i++) sums[n][i] = 0.0f;
    }
    copy_async_wait<0>();
  }
};

// Finds the sequence and the tile of this block: sequences in order, the tiles of each from the last one, which sees
// the most keys, to the first. All lanes of a warp call it.
DEVICE bool find_tile(const PagedAttention& p, u32 tile_rows, u32 sequences, u32 tokens, Slice& slice, u32& tile) {
  u32 rest = block_x();
  for (u32 begin = 0; begin < sequences; begin += WARP) {
    u32 count = 0;
    if (begin + lane_index() < sequences) {
      read_slice(p, begin + lane_index(), sequences, tokens, slice);
      if (slice.tokens != 0 && !in_spans(p, slice)) count = (slice.tokens * p.group + tile_rows - 1) / tile_rows;
    }
    u32 sum = count;
#pragma unroll
    for (u32 distance = 1; distance < WARP; distance *= 2) {
      const u32 lower = shuffle_up(sum, distance);
      if (lane_index() >= distance) sum += lower;
    }
    const u32 there = ballot(sum > rest, FULL_MASK);
    if (there == 0) {
      rest -= shuffle(sum, WARP - 1);
      continue;
    }
    const u32 lane = find_first(there);
    tile = shuffle(sum, lane) - 1 - rest;
    read_slice(p, begin + lane, sequences, tokens, slice);
    return true;
  }
  return false;
}

// Grid (tiles of all sequences, at least as many as there are; KV heads).
template <typename Cores, u32 D, u32 STRIP>
DEVICE void attend_tiles(const PagedAttention& p) {
  typedef Tiles<Cores, D, STRIP> Work;
  DYNAMIC_SHARED(u8, memory);
  SHARED(u32, places, [2 * STRIP]);
  SHARED(float, scales, [4 * TILE_ROWS]);
  Slice slice;
  u32 tile = 0;
  const u32 tile_rows = block_threads() / WARP * TILE_ROWS;
  if (!find_tile(p, tile_rows, rows_of(p.sequences), rows_of(p.tokens), slice, tile)) return;
  const u32 kv_head = block_y(), warp = warp_index(), row = tile * tile_rows, own = row + warp * TILE_ROWS;
  u8* const queries = memory + warp * Cores::template QUERY_BYTES<D>;
  u8* const strips = memory + block_threads() / WARP * Cores::template QUERY_BYTES<D>;
  u32* const weights = reinterpret_cast<u32*>(strips + 2 * Work::STRIP_BYTES) + warp * Work::STEPS * Work::STEP_WORDS;
  Work work = {p, slice, kv_head, strips, strips + Work::STRIP_BYTES, places, weights, 0, 0, 0, 0};
  seen_keys(p, slice, row, tile_rows, work.first, work.last);
  seen_keys(p, slice, own, TILE_ROWS, work.own_first, work.own_last);
  work.begin();
  load_queries<Cores, D>(p, slice, kv_head, own, 0, TILE_ROWS, queries, scales + warp * TILE_ROWS);
  warp_barrier();
  work.run(lane_rows(p, slice, kv_head, own, scales + warp * TILE_ROWS), queries);
}
