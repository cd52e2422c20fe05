// matmul: out = x @ concat(weights)^T (+ bias) (+ residual), by tensor cores from one row on.
//
// A warp multiplies 16 features (rows of weights) by up to 4 or 8 tokens (`matvec_few_<dtype>`, `matvec_<dtype>`) or 64
// (`matmul_<dtype>`). It
// stages its weights in its own shared memory by asynchronous copies, as the file has them, and turns them into
// fragments in registers; no warp waits for another, but where several share the segments of a sum.
// Grid (tiles of tokens, groups of tiles of features). Shared memory: staging and scales of each warp, partial sums
// of each warp, prepared rows.
//
// Block formats multiply integers, whose products and sums are exact, and scale them in f32; plain formats
// multiply bfloat16 parts that make up their values. The order of the float operations of an output depends on k
// alone, so that a row is the same in any batch and from either kernel.
#include "matmul.h"

#include "matmul_rows.cuh"

static constexpr u32 WARPS = MATMUL_WARPS;
static constexpr u32 THREADS = WARPS * WARP;
static constexpr u32 FEATURES = MATMUL_FEATURES;
static constexpr u32 TOKENS = MATMUL_TOKENS;
static constexpr u32 SEGMENT = MATMUL_SEGMENT;
static constexpr u32 STEP = MATMUL_STEP;
// Rows that are prepared side by side.
static constexpr u32 PREPARED = TOKENS * MATMUL_TILES;

// Sums of a fragment: features g and g + 8 of tokens 2t and 2t + 1, with g = lane / 4 and t = lane % 4.
struct Sums {
  float d[4];
};

// What a warp works on.
struct Work {
  const u8* weights;
  u64 row_bytes;
  // Of the elements that count.
  u32 bytes;
  u32 features;
  bool aligned;
  // The rows of features lane / 4 and lane / 4 + 8.
  const u8* rows[2];

  // The last row stands for those past it.
  DEVICE const u8* row(u32 feature) const {
    return weights + (feature < features ? feature : features - 1) * row_bytes;
  }
};

DEVICE u32 phase_of(const u8* p) { return static_cast<u32>(reinterpret_cast<u64>(p)) % 16; }

// Begins to copy a chunk of 16 rows. Rows keep their offset from a multiple of 16 bytes; what lies past a row is
// zero where a fragment can hold it. Four lanes share a row, so that a warp reads 64 bytes of each of eight.
template <typename Format>
DEVICE void stage_chunk(const Work& w, u8* stage, u32 chunk) {
  typedef Staging<Format> Stage;
  const u32 lane = lane_index();
  const u32 begin = chunk * Stage::BYTES;
  const u32 left = w.bytes > begin ? w.bytes - begin : 0;
  if (Stage::IS_BLOCK && left == 0) return;
  if (!w.aligned) {
    for (u32 i = lane; i < FEATURES * (Stage::BYTES / 2); i += WARP) {
      const u32 feature = i / (Stage::BYTES / 2), at = i % (Stage::BYTES / 2) * 2;
      u16 value = 0;
      if (at < left) value = *reinterpret_cast<const u16*>(w.row(feature) + begin + at);
      *reinterpret_cast<u16*>(stage + feature * Stage::STRIDE + at) = value;
    }
    return;
  }
  const u32 first = lane % 4 * 16;
#pragma unroll
  for (u32 half = 0; half < 2; half++) {
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
template <typename Format>
DEVICE const u8* staged_row(const Work& w, const u8* stage, u32 half, u32 chunk) {
  const u32 phase = Staging<Format>::IS_BLOCK && w.aligned ? phase_of(w.rows[half] + chunk * Staging<Format>::BYTES) : 0;
  return stage + (lane_index() / 4 + 8 * half) * Staging<Format>::STRIDE + phase;
}

struct alignas(8) Two {
  float x, y;
};

struct alignas(8) Words2 {
  u32 x, y;
};

template <typename Format>
struct Scaling {
  static constexpr u32 SUB = Weights<Format>::SUB;
  static constexpr u32 SUBS = SEGMENT / SUB;
};

// Writes the scales of a staged segment, each with its minimum where the format has one, [sub-block][feature]. A lane
// has every fourth sub-block of its two features.
template <typename Format>
DEVICE void unpack_scales(const u8* const (&rows)[2], float* scales, u32 elements) {
  typedef Scaling<Format> S;
  const u32 lane = lane_index();
#pragma unroll
  for (u32 i = 0; i < S::SUBS / 4; i++) {
    const u32 sub = 4 * i + lane % 4;
    const u32 element = sub * S::SUB;
    if (element >= elements) continue;
#pragma unroll
    for (u32 half = 0; half < 2; half++) {
      const u8* block = rows[half] + element / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
      const Octet octet = Format::octet(block, element % Format::BLOCK_ELEMENTS / 8);
      const u32 at = sub * FEATURES + lane / 4 + 8 * half;
      if (Format::HAS_MINIMUM) {
        reinterpret_cast<Two*>(scales)[at] = {octet.scale, octet.minimum};
      } else {
        scales[at] = octet.scale;
      }
    }
  }
}

// Rows of x where a lane reads them. Lanes of columns that are not there read the last one: what they compute is not
// stored.
template <u32 TILES, bool FEW>
struct LaneRows {
  const u8* fragments;
  const float* sums;
  const float* scales;
  u32 columns;
  u32 pairs;

  DEVICE explicit LaneRows(const RowTile& x) {
    const u32 g = lane_index() / 4, t = lane_index() % 4;
    // All columns are there where a warp has several tiles.
    columns = TILES == 1 ? x.columns : TILES * TOKENS;
    pairs = (columns + 1) / 2;
    const u32 column = FEW ? g / 2 : g;
    fragments = x.fragments + (column < columns ? column : columns - 1) * 64 + t * 16 + (FEW ? g % 2 * 8 : 0);
    // Of a row, or of two.
    const u32 last = FEW ? columns - 1 : pairs - 1;
    const u32 at = (t < last ? t : last) * (FEW ? 1 : 2);
    sums = x.sums + at * 2;
    scales = x.scales + at;
  }

  // The words of line `line` (a plane of a step) of tile `tile`.
  DEVICE Words4 words(u32 line, u32 tile) const {
    return *reinterpret_cast<const Words4*>(fragments + (line * columns + tile * TOKENS) * 64);
  }
  DEVICE Words2 few_words(u32 step) const {
    return *reinterpret_cast<const Words2*>(fragments + step * columns * 64);
  }
  // Both halves' sums of a step.
  DEVICE Float4 sums_of_two(u32 step, u32 tile) const {
    return *reinterpret_cast<const Float4*>(sums + (step * pairs * 2 + tile * TOKENS) * 2);
  }
  DEVICE Two sums_of_one(u32 step) const { return *reinterpret_cast<const Two*>(sums + step * pairs * 4); }
  DEVICE Two scales_of_two(u32 group, u32 tile) const {
    return *reinterpret_cast<const Two*>(scales + group * pairs * 2 + tile * TOKENS);
  }
  DEVICE float scale_of_one(u32 group) const { return scales[group * pairs * 2]; }
};

// sums += scale of each feature * (integer + minimum part).
template <bool has_minimum>
DEVICE void add_scaled(Sums& sums, const i32 (&d)[4], const float (&scale)[2], const float (&minimum)[2], Two total) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) {
    sums.d[i] = fused_multiply_add(scale[i / 2], static_cast<float>(d[i]), sums.d[i]);
    if (has_minimum) sums.d[i] = fused_multiply_add(minimum[i / 2], i % 2 == 0 ? total.x : total.y, sums.d[i]);
  }
}

// 128 times the products with the high bytes plus those with the low ones.
DEVICE void weigh_high(i32 (&d)[4]) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) d[i] *= 128;
}

template <u32 TILES>
DEVICE void clear(Sums (&sums)[TILES]) {
#pragma unroll
  for (u32 tile = 0; tile < TILES; tile++) sums[tile] = {{0.0f, 0.0f, 0.0f, 0.0f}};
}

template <u32 TILES>
DEVICE void add(Sums (&sums)[TILES], const Sums (&more)[TILES]) {
#pragma unroll
  for (u32 tile = 0; tile < TILES; tile++) {
#pragma unroll
    for (u32 i = 0; i < 4; i++) sums[tile].d[i] += more[tile].d[i];
  }
}

// Up to FEW rows of x stand in both their parts beside each other, high and low bytes as columns of one product: that
// is half the work. A lane then has features g and g + 8 of row t, in d[0] and d[1].
DEVICE void combine_parts(i32 (&d)[4]) {
  d[0] = d[0] * 128 + d[1];
  d[1] = d[2] * 128 + d[3];
}

template <bool has_minimum>
DEVICE void add_few(Sums& sums, const i32 (&d)[4], const float (&scale)[2], const float (&minimum)[2], float total) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    sums.d[i] = fused_multiply_add(scale[i], static_cast<float>(d[i]), sums.d[i]);
    if (has_minimum) sums.d[i] = fused_multiply_add(minimum[i], total, sums.d[i]);
  }
}

// Step `s` of a chunk of a block format, step `step` of x. rows: the staged rows of features g and g + 8.
template <typename Format, u32 TILES, bool FEW>
DEVICE void multiply_step(Sums (&group)[TILES], const u8* const (&rows)[2], const float* scales,
                          const LaneRows<TILES, FEW>& x, u32 live, u32 s, u32 step) {
  typedef Scaling<Format> S;
  static constexpr u32 PARTS = STEP / S::SUB;
  const u32 lane = lane_index(), g = lane / 4, t = lane % 4;
  const u32 block = s * STEP / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
  const u32 within = s * STEP % Format::BLOCK_ELEMENTS / STEP;
  const Levels upper = Weights<Format>::pair(rows[0] + block, within, t);
  const Levels lower = Weights<Format>::pair(rows[1] + block, within, t);
  const u32 a[4] = {upper.low, lower.low, upper.high, lower.high};
  float scale[PARTS][2], minimum[PARTS][2];
#pragma unroll
  for (u32 part = 0; part < PARTS; part++) {
#pragma unroll
    for (u32 i = 0; i < 2; i++) {
      const u32 from = (s * PARTS + part) * FEATURES + g + 8 * i;
      const Two both = Format::HAS_MINIMUM ? reinterpret_cast<const Two*>(scales)[from] : Two{scales[from], 0.0f};
      scale[part][i] = both.x;
      minimum[part][i] = both.y;
    }
  }
  if constexpr (FEW) {
    const Words2 words = x.few_words(step);
    Two total = {0.0f, 0.0f};
    if (Format::HAS_MINIMUM) total = x.sums_of_one(step);
    i32 d[4] = {0, 0, 0, 0}, e[4] = {0, 0, 0, 0};
    if (PARTS == 1) {
      const u32 b[2] = {words.x, words.y};
      multiply_bytes32(d, a, b);
      combine_parts(d);
      add_few<Format::HAS_MINIMUM>(group[0], d, scale[0], minimum[0], total.x + total.y);
    } else {
      multiply_bytes16(d, a[0], a[1], words.x);
      multiply_bytes16(e, a[2], a[3], words.y);
      combine_parts(d);
      combine_parts(e);
      add_few<Format::HAS_MINIMUM>(group[0], d, scale[0], minimum[0], total.x);
      add_few<Format::HAS_MINIMUM>(group[0], e, scale[PARTS - 1], minimum[PARTS - 1], total.y);
    }
  } else {
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++) {
      if (tile >= live) continue;
      const Words4 words = x.words(step, tile);
      Float4 total = {0.0f, 0.0f, 0.0f, 0.0f};
      if (Format::HAS_MINIMUM) total = x.sums_of_two(step, tile);
      i32 d[4] = {0, 0, 0, 0};
      if (PARTS == 1) {
        const u32 high[2] = {words.x, words.y}, low[2] = {words.z, words.w};
        multiply_bytes32(d, a, high);
        weigh_high(d);
        multiply_bytes32(d, a, low);
        add_scaled<Format::HAS_MINIMUM>(group[tile], d, scale[0], minimum[0], {total.x + total.y, total.z + total.w});
      } else {
        i32 e[4] = {0, 0, 0, 0};
        multiply_bytes16(d, a[0], a[1], words.x);
        multiply_bytes16(e, a[2], a[3], words.y);
        weigh_high(d);
        weigh_high(e);
        multiply_bytes16(d, a[0], a[1], words.z);
        multiply_bytes16(e, a[2], a[3], words.w);
        add_scaled<Format::HAS_MINIMUM>(group[tile], d, scale[0], minimum[0], {total.x, total.z});
        add_scaled<Format::HAS_MINIMUM>(group[tile], e, scale[PARTS - 1], minimum[PARTS - 1], {total.y, total.w});
      }
    }
  }
}

// One chunk of a block format, group by group of x.
template <typename Format, u32 TILES, bool FEW>
DEVICE void multiply_blocks(Sums (&sums)[TILES], const u8* const (&rows)[2], const float* scales,
                            const LaneRows<TILES, FEW>& x, u32 live, u32 first_step, u32 steps) {
  static constexpr u32 GROUP_STEPS = MATMUL_GROUP / STEP;
#pragma unroll 1
  for (u32 s = 0; s < steps; s += GROUP_STEPS) {
    Sums group[TILES];
    clear(group);
    if (TILES == 1 && s + GROUP_STEPS <= steps) {
      // In one piece of code steps share bytes of weights.
#pragma unroll
      for (u32 i = 0; i < GROUP_STEPS; i++)
        multiply_step<Format, TILES, FEW>(group, rows, scales, x, live, s + i, first_step + s + i);
    } else {
#pragma unroll 1
      for (u32 i = s; i < s + GROUP_STEPS && i < steps; i++)
        multiply_step<Format, TILES, FEW>(group, rows, scales, x, live, i, first_step + i);
    }
    const u32 at = (first_step + s) / GROUP_STEPS;
    if constexpr (FEW) {
      const float by = x.scale_of_one(at);
#pragma unroll
      for (u32 i = 0; i < 2; i++) sums[0].d[i] = fused_multiply_add(by, group[0].d[i], sums[0].d[i]);
    } else {
#pragma unroll
      for (u32 tile = 0; tile < TILES; tile++) {
        if (tile >= live) continue;
        const Two by = x.scales_of_two(at, tile);
#pragma unroll
        for (u32 i = 0; i < 4; i++)
          sums[tile].d[i] = fused_multiply_add(i % 2 == 0 ? by.x : by.y, group[tile].d[i], sums[tile].d[i]);
      }
    }
  }
}

// One chunk of a plain format.
template <typename Format, u32 TILES>
DEVICE void multiply_planes(Sums (&sums)[TILES], const u8* chunk, const LaneRows<TILES, false>& x, u32 live,
                            u32 first_step, u32 steps) {
  typedef Weights<Format> W;
  const u32 lane = lane_index();
#pragma unroll 1
  for (u32 s = 0; s < steps; s++) {
    Fragment a[2][W::PLANES];
#pragma unroll
    for (u32 half = 0; half < 2; half++)
      W::planes(a[half], chunk, Staging<Format>::STRIDE, s * STEP + half * 16, lane);
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++) {
      if (tile >= live) continue;
      Words4 words[3];
#pragma unroll
      for (u32 plane = 0; plane < 3; plane++) words[plane] = x.words((first_step + s) * 3 + plane, tile);
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
#pragma unroll
        for (u32 i = 0; i < W::PLANES; i++) {
          // Parts whose product is below a float's last bit are left out.
#pragma unroll
          for (u32 j = 0; i + j < 3; j++) {
            const u32 b[2] = {half == 0 ? words[j].x : words[j].z, half == 0 ? words[j].y : words[j].w};
            multiply_bf16(sums[tile].d, a[half][i].words, b);
          }
        }
      }
    }
  }
}

// The chunks of a warp, over all its segments, in order.
template <typename Format>
struct Stream {
  typedef Staging<Format> Stage;
  static constexpr u32 CHUNKS = SEGMENT / Stage::CHUNK;
  static constexpr u32 STAGE_BYTES = Stage::STRIDE * FEATURES;

  Work work;
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

DEVICE void store_sum(const Matmul& p, const MatmulPart& part, u32 feature, u32 token, float sum) {
  const u32 column = part.column + feature;
  if (part.bias != nullptr) sum += part.bias[feature];
  if (p.residual.data != nullptr) sum += p.residual.data[token * p.residual.stride + column];
  p.out.data[token * p.out.stride + column] = sum;
}

template <typename Format, u32 TILES, bool FEW>
DEVICE void multiply(const Matmul& p) {
  typedef Staging<Format> Stage;
  static constexpr bool IS_BLOCK = Stage::IS_BLOCK;
  static constexpr u32 STAGE_BYTES = Stage::STRIDE * FEATURES;
  static constexpr u32 CHUNKS = SEGMENT / Stage::CHUNK;
  const u32 token = block_x() * TILES * TOKENS;
  const u32 tokens = rows_of(p.rows);
  if (token >= tokens) return;
  DYNAMIC_SHARED(u8, shared);
  const u32 lane = lane_index(), warp = warp_index(), warps = block_threads() / WARP;
  const u32 turn = warp % p.split;
  const u32 tile_index = block_y() * (warps / p.split) + warp / p.split;
  const bool has_work = tile_index < p.tiles;
  u32 index = 0;
  if (p.parts_count > 1 && tile_index >= p.parts[1].first_tile) index = 1;
  if (p.parts_count > 2 && tile_index >= p.parts[2].first_tile) index = 2;
  const MatmulPart& part = p.parts[index];
  const u32 feature = has_work ? (tile_index - part.first_tile) * FEATURES : 0;

  const u32 segments = (p.steps * STEP + SEGMENT - 1) / SEGMENT;
  const u32 rounds = (segments + p.split - 1) / p.split;
  u8* const own = shared + warp * p.warp_bytes;
  float* const scales = reinterpret_cast<float*>(own + Stage::STAGES * STAGE_BYTES);
  Stream<Format> stream = {
      {part.data + feature * part.row_bytes, part.row_bytes, p.k / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES,
       part.rows - feature, part.aligned != 0, {}},
      own, turn, p.split, has_work ? segments : 0, 0, 0};
  stream.work.rows[0] = stream.work.row(lane / 4);
  stream.work.rows[1] = stream.work.row(lane / 4 + 8);
  stream.begin_next();

  // Rows are prepared while the first weights are under way.
  RowTile rows_here;
  const u32 live = (tokens - token + TOKENS - 1) / TOKENS;
  if (TILES == 1 && p.prepared == nullptr) {
    rows_here = Rows<IS_BLOCK>::tile(shared + p.prepared_offset, p.steps, tokens);
    const u32 spans = (p.steps + 3) / 4;
    for (u32 i = warp; i < spans * tokens; i += warps)
      prepare<IS_BLOCK>(rows_here, i / spans, p.x.data + i / spans * p.x.stride, p.k, p.steps, i % spans, p.vectors != 0);
    barrier();
  } else {
    // A block of one tile is the only one.
    rows_here = Rows<IS_BLOCK>::tile(const_cast<u8*>(p.prepared) + block_x() * p.prepared_stride, p.steps, PREPARED);
  }

  const LaneRows<TILES, FEW> x(rows_here);

  Sums total[TILES];
  clear(total);
  // [warp][tile][lane]; those of the first of the warps that take turns are not used.
  Sums* const partials = reinterpret_cast<Sums*>(shared + p.partials_offset);
  for (u32 round = 0; round < rounds; round++) {
    const u32 segment = round * p.split + turn;
    Sums sums[TILES];
    clear(sums);
    if (segment < stream.segments) {
      const u32 first_step = segment * (SEGMENT / STEP);
#pragma unroll 1
      for (u32 c = 0; c < CHUNKS; c++) {
        stream.begin_next();
        copy_async_wait<Stage::STAGES - 1>();
        warp_barrier();
        const u32 chunk = segment * CHUNKS + c;
        const u8* stage = own + stream.taken++ % Stage::STAGES * STAGE_BYTES;
        const u32 first = first_step + c * (Stage::CHUNK / STEP);
        const u32 left = p.steps > first ? p.steps - first : 0;
        const u32 steps = left < Stage::CHUNK / STEP ? left : Stage::CHUNK / STEP;
        if constexpr (IS_BLOCK) {
          const u8* const rows[2] = {staged_row<Format>(stream.work, stage, 0, chunk),
                                     staged_row<Format>(stream.work, stage, 1, chunk)};
          unpack_scales<Format>(rows, scales, steps * STEP);
          warp_barrier();
          multiply_blocks<Format, TILES, FEW>(sums, rows, scales, x, live, first, steps);
        } else {
          multiply_planes<Format, TILES>(sums, stage, x, live, first, steps);
        }
        // The next copies go where this chunk was.
        warp_barrier();
      }
    }
    if (p.split == 1) {
      add(total, sums);
      continue;
    }
    if (turn > 0) {
#pragma unroll
      for (u32 tile = 0; tile < TILES; tile++) partials[(warp * TILES + tile) * WARP + lane] = sums[tile];
    }
    barrier();
    if (turn == 0) {
      add(total, sums);
      for (u32 other = 1; other < p.split && segment + other < segments; other++) {
#pragma unroll
        for (u32 tile = 0; tile < TILES; tile++) sums[tile] = partials[((warp + other) * TILES + tile) * WARP + lane];
        add(total, sums);
      }
    }
    barrier();
  }
  copy_async_wait<0>();
  if (turn > 0 || !has_work) return;

#pragma unroll
  for (u32 tile = 0; tile < TILES; tile++) {
#pragma unroll
    for (u32 i = 0; i < (FEW ? 2 : 4); i++) {
      const u32 at = token + (FEW ? lane % 4 : tile * TOKENS + lane % 4 * 2 + i % 2);
      const u32 own_feature = feature + lane / 4 + (FEW ? i : i / 2) * 8;
      if (at < tokens && own_feature < part.rows) store_sum(p, part, own_feature, at, total[tile].d[i]);
    }
  }
}

// Grid (rows, parts of a row).
template <bool is_block>
DEVICE void prepare_row(const MatmulPrepare& p) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const u32 span = block_y() * (block_threads() / WARP) + warp_index();
  if (span * 4 >= p.steps) return;
  const RowTile tile = Rows<is_block>::tile(p.prepared + row / PREPARED * p.prepared_stride, p.steps, PREPARED);
  prepare<is_block>(tile, row % PREPARED, p.x.data + row * p.x.stride, p.k, p.steps, span, p.vectors != 0);
}

KERNEL(matmul_prepare_integers, MatmulPrepare, THREADS, 1) { prepare_row<true>(p); }
KERNEL(matmul_prepare_parts, MatmulPrepare, THREADS, 1) { prepare_row<false>(p); }

#define PRODUCT(name, Format)                                           \
  KERNEL(matvec_##name, Matmul, THREADS, 2) { multiply<Format, 1, false>(p); } \
  KERNEL(matmul_##name, Matmul, THREADS, 1) { multiply<Format, MATMUL_TILES, false>(p); }
#define PRODUCT_OF_FEW(name, Format) \
  KERNEL(matvec_few_##name, Matmul, THREADS, 2) { multiply<Format, 1, true>(p); }

FOR_EACH_PLAIN_FORMAT(PRODUCT)
FOR_EACH_BLOCK_FORMAT(PRODUCT)
FOR_EACH_BLOCK_FORMAT(PRODUCT_OF_FEW)
