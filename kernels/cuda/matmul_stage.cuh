// How a warp brings its weights into its shared memory: chunks of rows as the file has them, by asynchronous copies, and
// the scales of a chunk unpacked.
#pragma once

#include "matmul_rows.cuh"

static constexpr u32 FEATURES = MATMUL_FEATURES;
static constexpr u32 SEGMENT = MATMUL_SEGMENT;

// What a warp works on: tiles of features.
template <u32 FEATURE_TILES>
struct Work {
  const u8* weights;
  u64 row_bytes;
  // Of the elements that count.
  u32 bytes;
  u32 features;
  bool aligned;
  // The rows of features lane / 4, lane / 4 + 8 and so on.
  const u8* rows[2 * FEATURE_TILES];

  // The last row stands for those past it.
  DEVICE const u8* row(u32 feature) const {
    return weights + (feature < features ? feature : features - 1) * row_bytes;
  }
};

DEVICE u32 phase_of(const u8* p) { return static_cast<u32>(reinterpret_cast<u64>(p)) % 16; }

// Begins to copy a chunk of every row. Rows keep their offset from a multiple of 16 bytes; what lies past a row is
// zero where a fragment can hold it. Four lanes share a row, so that a warp reads 64 bytes of each of eight.
template <typename Format, u32 FEATURE_TILES>
DEVICE void stage_chunk(const Work<FEATURE_TILES>& w, u8* stage, u32 chunk) {
  typedef Staging<Format> Stage;
  const u32 lane = lane_index();
  const u32 begin = chunk * Stage::BYTES;
  const u32 left = w.bytes > begin ? w.bytes - begin : 0;
  if (Stage::IS_BLOCK && left == 0) return;
  if (!w.aligned) {
    for (u32 i = lane; i < FEATURE_TILES * FEATURES * (Stage::BYTES / 2); i += WARP) {
      const u32 feature = i / (Stage::BYTES / 2), at = i % (Stage::BYTES / 2) * 2;
      u16 value = 0;
      if (at < left) value = *reinterpret_cast<const u16*>(w.row(feature) + begin + at);
      *reinterpret_cast<u16*>(stage + feature * Stage::STRIDE + at) = value;
    }
    return;
  }
  const u32 first = lane % 4 * 16;
#pragma unroll
  for (u32 half = 0; half < 2 * FEATURE_TILES; half++) {
    const u8* source = w.rows[half] + begin;
    const u32 phase = Stage::IS_BLOCK ? phase_of(source) : 0;
    const u8* piece = source - phase + first;
    u8* target = stage + (lane / 4 + 8 * half) * Stage::STRIDE + first;
    // Not near the end of the row, pieces are whole.
    if (left >= Stage::BYTES + (Stage::IS_BLOCK ? 15 : 0)) {
#pragma unroll
      for (u32 at = 0; at < Stage::PIECES * 16; at += 64)
        if (at + 64 <= Stage::BYTES || at + first < phase + Stage::BYTES) copy_async16(target + at, piece + at);
    } else {
#pragma unroll 1
      for (u32 at = 0; at + first < phase + Stage::BYTES; at += 64) {
        const u32 end = phase + left;
        const u32 valid = at + first >= end ? 0 : end - at - first < 16 ? end - at - first : 16;
        // Nothing reads blocks past the end; elements there must be zero.
        if (valid > 0 || !Stage::IS_BLOCK) copy_async16(target + at, valid > 0 ? piece + at : source, valid);
      }
    }
  }
}

// The staged row of feature lane / 4 + 8 * half.
template <typename Format, u32 FEATURE_TILES>
DEVICE const u8* staged_row(const Work<FEATURE_TILES>& w, const u8* stage, u32 half, u32 chunk) {
  const u32 phase = Staging<Format>::IS_BLOCK && w.aligned ? phase_of(w.rows[half] + chunk * Staging<Format>::BYTES) : 0;
  return stage + (lane_index() / 4 + 8 * half) * Staging<Format>::STRIDE + phase;
}

struct alignas(8) Two {
  float x, y;
};

struct alignas(8) Words2 {
  u32 x, y;
};

// Writes the scales of a staged segment, each with its minimum where the format has one, [sub-block][feature]. A lane
// has every fourth sub-block of its features.
// Past the end of a row they are those of whatever lies there, and nothing reads them. All is read before anything is
// written, so that what scales of a block share is read once.
template <typename Format, u32 FEATURE_TILES>
DEVICE void unpack_scales(const u8* const (&rows)[2 * FEATURE_TILES], float* scales) {
  static constexpr u32 SUB = Weights<Format>::SUB;
  static constexpr u32 COUNT = Staging<Format>::CHUNK / SUB / 4;
  const u32 lane = lane_index();
#pragma unroll
  for (u32 half = 0; half < 2 * FEATURE_TILES; half++) {
    Two found[COUNT];
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
      const u32 element = (4 * i + lane % 4) * SUB;
      const u8* block = rows[half] + element / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
      const Octet octet = Format::octet(block, element % Format::BLOCK_ELEMENTS / 8);
      found[i] = {octet.scale * Weights<Format>::UNIT, octet.minimum};
    }
#pragma unroll
    for (u32 i = 0; i < COUNT; i++) {
      const u32 at = (4 * i + lane % 4) * FEATURE_TILES * FEATURES + lane / 4 + 8 * half;
      if (Format::HAS_MINIMUM) {
        reinterpret_cast<Two*>(scales)[at] = found[i];
      } else {
        scales[at] = found[i].x;
      }
    }
  }
}

// The chunks of a warp, over all its segments, in order.
template <typename Format, u32 FEATURE_TILES>
struct Stream {
  typedef Staging<Format> Stage;
  static constexpr u32 CHUNKS = SEGMENT / Stage::CHUNK;
  static constexpr u32 STAGE_BYTES = Stage::STRIDE * FEATURE_TILES * FEATURES;

  Work<FEATURE_TILES> work;
  u8* const memory;
  const u32 first_segment;
  const u32 split;
  const u32 segments;
  u32 staged;
  u32 taken;

  // One group of copies, if only an empty one: so the number of groups tells which chunks have arrived.
  DEVICE void begin_next() {
    const u32 segment = first_segment + staged / CHUNKS * split;
    if (segment < segments)
      stage_chunk<Format>(work, memory + staged % Stage::STAGES * STAGE_BYTES, segment * CHUNKS + staged % CHUNKS);
    copy_async_commit();
    staged++;
  }
};
