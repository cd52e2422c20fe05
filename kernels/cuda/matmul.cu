// matmul: out = x @ concat(weights)^T (+ bias) (+ residual), by tensor cores from one row on.
//
// A warp multiplies 16 features (rows of weights) by 1, up to 4 or up to 8 tokens (`matvec_one_<dtype>`,
// `matvec_few_<dtype>`, `matvec_<dtype>`) or 64 (`matmul_<dtype>`), or 32 features by 64 tokens (`matmul_fast_<dtype>`).
// It stages its weights in its own shared memory by asynchronous copies, as the file has them, and turns them into
// fragments in registers; no warp waits for another, but where several share the segments of a sum.
// Grid (tiles of tokens, groups of tiles of features). Shared memory: staging and scales of each warp, partial sums
// of each warp, prepared rows.
//
// Block formats multiply integers, whose products and sums are exact, and scale them in f32; plain formats
// multiply bfloat16 parts that make up their values. The fast kernels multiply values that are rounded to bfloat16 once
// (weights that are not block-quantised: their first one or two parts), so there is one product where there were two to
// six, and no scaling behind it. The order of the float operations of an output depends on k alone, so that a row is
// the same in any batch and from any kernel but the fast ones.
#include "matmul.h"

#include "matmul_stage.cuh"

static constexpr u32 WARPS = MATMUL_WARPS;
static constexpr u32 THREADS = WARPS * WARP;
static constexpr u32 TOKENS = MATMUL_TOKENS;
static constexpr u32 STEP = MATMUL_STEP;
// Rows that are prepared side by side.
static constexpr u32 PREPARED = TOKENS * MATMUL_TILES;

// One token or few, their parts side by side; as exact as f32; rounded to bfloat16. A single row always lies in shared
// memory, where all it takes to reach a step is a constant.
enum Mode { ONE, FEW, PRECISE, FAST };

template <Mode MODE>
static constexpr bool IS_FEW = MODE == ONE || MODE == FEW;

// Sums of a fragment: features g and g + 8 of tokens 2t and 2t + 1, with g = lane / 4 and t = lane % 4.
struct Sums {
  float d[4];
};

// Rows of x where a lane reads them. Lanes of columns that are not there read the last one: what they compute is not
// stored.
template <u32 TILES, Mode MODE>
struct LaneRows {
  const u8* fragments;
  const float* sums;
  const float* scales;
  u32 columns;
  u32 pairs;

  DEVICE explicit LaneRows(const RowTile& x) {
    const u32 g = lane_index() / 4, t = lane_index() % 4;
    // All columns are there where a warp has several tiles.
    columns = MODE == ONE ? 1 : TILES == 1 ? x.columns : TILES * TOKENS;
    pairs = (columns + 1) / 2;
    const u32 column = IS_FEW<MODE> ? g / 2 : g;
    fragments = x.fragments + (column < columns ? column : columns - 1) * 64 + t * 16 + (IS_FEW<MODE> ? g % 2 * 8 : 0);
    // Of a row, or of two.
    const u32 last = IS_FEW<MODE> ? columns - 1 : pairs - 1;
    const u32 at = (t < last ? t : last) * (IS_FEW<MODE> ? 1 : 2);
    sums = x.sums + at * 2;
    scales = x.scales + at;
  }

  // The words of line `line` (a plane of a step) of tile `tile`.
  DEVICE Words4 words(u32 line, u32 tile) const {
    return *reinterpret_cast<const Words4*>(fragments + (line * columns + tile * TOKENS) * 64);
  }
  // Those of one half of the step.
  DEVICE Words2 half_words(u32 line, u32 tile, u32 half) const {
    return *reinterpret_cast<const Words2*>(fragments + (line * columns + tile * TOKENS) * 64 + half * 8);
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

DEVICE void add(Sums& sums, const Sums& more) {
#pragma unroll
  for (u32 i = 0; i < 4; i++) sums.d[i] += more.d[i];
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
template <typename Format, u32 TILES, Mode MODE>
DEVICE void multiply_step(Sums (&group)[TILES], const u8* const (&rows)[2], const float* scales,
                          const LaneRows<TILES, MODE>& x, u32 live, u32 s, u32 step) {
  static constexpr u32 PARTS = STEP / Weights<Format>::SUB;
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
  if constexpr (IS_FEW<MODE>) {
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
template <typename Format, u32 TILES, Mode MODE>
DEVICE void multiply_blocks(Sums (&sums)[TILES], const u8* const (&rows)[2], const float* scales,
                            const LaneRows<TILES, MODE>& x, u32 live, u32 first_step, u32 steps) {
  static constexpr u32 GROUP_STEPS = MATMUL_GROUP / STEP;
#pragma unroll 1
  for (u32 s = 0; s < steps; s += GROUP_STEPS) {
    Sums group[TILES];
    clear(group);
    if (TILES == 1 && s + GROUP_STEPS <= steps) {
      // In one piece of code steps share bytes of weights.
#pragma unroll
      for (u32 i = 0; i < GROUP_STEPS; i++)
        multiply_step<Format, TILES, MODE>(group, rows, scales, x, live, s + i, first_step + s + i);
    } else {
#pragma unroll 1
      for (u32 i = s; i < s + GROUP_STEPS && i < steps; i++)
        multiply_step<Format, TILES, MODE>(group, rows, scales, x, live, i, first_step + i);
    }
    const u32 at = (first_step + s) / GROUP_STEPS;
    if constexpr (IS_FEW<MODE>) {
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

// Four levels of a row, scaled and rounded: the first two and the last two.
DEVICE void round_levels(u32 (&words)[2], u32 levels, float scale, float minimum) {
#pragma unroll
  for (u32 i = 0; i < 2; i++) {
    const float first = static_cast<float>(static_cast<i8>(levels >> (16 * i)));
    const float second = static_cast<float>(static_cast<i8>(levels >> (16 * i + 8)));
    words[i] = pack_bf16(fused_multiply_add(scale, first, minimum), fused_multiply_add(scale, second, minimum));
  }
}

// One chunk of a block format, rounded. The columns of a[16, 16] are in the order that the levels of a lane have, as
// are the rows of b (`prepare_quads`).
template <typename Format, u32 TILES, u32 FEATURE_TILES>
DEVICE void multiply_rounded(Sums (&sums)[FEATURE_TILES][TILES], const u8* const (&rows)[2 * FEATURE_TILES],
                             const float* scales, const LaneRows<TILES, FAST>& x, u32 live, u32 first_step, u32 steps) {
  static constexpr u32 PARTS = STEP / Weights<Format>::SUB;
  const u32 g = lane_index() / 4, t = lane_index() % 4;
#pragma unroll 1
  for (u32 s = 0; s < steps; s++) {
    const u32 block = s * STEP / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES;
    const u32 within = s * STEP % Format::BLOCK_ELEMENTS / STEP;
    // [tile][half of the step]
    Fragment a[FEATURE_TILES][2];
#pragma unroll
    for (u32 row = 0; row < 2 * FEATURE_TILES; row++) {
      const Levels levels = Weights<Format>::pair(rows[row] + block, within, t);
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
        const u32 from = (s * PARTS + (PARTS == 1 ? 0 : half)) * FEATURE_TILES * FEATURES + g + 8 * row;
        const Two by = Format::HAS_MINIMUM ? reinterpret_cast<const Two*>(scales)[from] : Two{scales[from], 0.0f};
        u32 words[2];
        round_levels(words, half == 0 ? levels.low : levels.high, by.x, by.y);
        a[row / 2][half].words[row % 2] = words[0];
        a[row / 2][half].words[row % 2 + 2] = words[1];
      }
    }
#pragma unroll
    for (u32 tile = 0; tile < TILES; tile++) {
      if (tile >= live) continue;
      const Words4 words = x.words(first_step + s, tile);
      const u32 b[2][2] = {{words.x, words.y}, {words.z, words.w}};
#pragma unroll
      for (u32 half = 0; half < 2; half++) {
#pragma unroll
        for (u32 f = 0; f < FEATURE_TILES; f++) multiply_bf16(sums[f][tile].d, a[f][half].words, b[half]);
      }
    }
  }
}

// One chunk of a plain format, rounded.
template <typename Format, u32 TILES, u32 FEATURE_TILES>
DEVICE void multiply_first_planes(Sums (&sums)[FEATURE_TILES][TILES], const u8* chunk, const LaneRows<TILES, FAST>& x,
                                  u32 live, u32 first_step, u32 steps) {
  typedef Weights<Format> W;
  static constexpr u32 PLANES = W::PLANES < 2 ? W::PLANES : 2;
  const u32 lane = lane_index();
#pragma unroll 1
  for (u32 s = 0; s < steps; s++) {
#pragma unroll 1
    for (u32 half = 0; half < 2; half++) {
      Fragment a[FEATURE_TILES][W::PLANES];
#pragma unroll
      for (u32 f = 0; f < FEATURE_TILES; f++)
        W::planes(a[f], chunk + f * FEATURES * Staging<Format>::STRIDE, Staging<Format>::STRIDE, s * STEP + half * 16,
                  lane);
#pragma unroll
      for (u32 tile = 0; tile < TILES; tile++) {
        if (tile >= live) continue;
        const Words2 words = x.half_words(first_step + s, tile, half);
        const u32 b[2] = {words.x, words.y};
#pragma unroll
        for (u32 f = 0; f < FEATURE_TILES; f++) {
#pragma unroll
          for (u32 i = 0; i < PLANES; i++) multiply_bf16(sums[f][tile].d, a[f][i].words, b);
        }
      }
    }
  }
}

// One chunk of a plain format.
template <typename Format, u32 TILES>
DEVICE void multiply_planes(Sums (&sums)[TILES], const u8* chunk, const LaneRows<TILES, PRECISE>& x, u32 live,
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

DEVICE void store_sum(const Matmul& p, const MatmulPart& part, u32 feature, u32 token, float sum) {
  const u32 column = part.column + feature;
  if (part.bias != nullptr) sum += part.bias[feature];
  if (p.residual.data != nullptr) sum += p.residual.data[token * p.residual.stride + column];
  p.out.data[token * p.out.stride + column] = sum;
}

template <typename Format, u32 TILES, Mode MODE>
DEVICE void multiply(const Matmul& p) {
  typedef Staging<Format> Stage;
  static constexpr bool IS_BLOCK = Stage::IS_BLOCK;
  static constexpr u32 FEATURE_TILES = MODE == FAST ? MATMUL_FAST_FEATURES / FEATURES : 1;
  static constexpr u32 STAGE_BYTES = Stream<Format, FEATURE_TILES>::STAGE_BYTES;
  static constexpr u32 CHUNKS = SEGMENT / Stage::CHUNK;
  static constexpr Form FORM = MODE == FAST ? (IS_BLOCK ? QUADS : ROUNDED) : IS_BLOCK ? INTEGERS : PARTS;
  static constexpr u32 ALL_SUMS = FEATURE_TILES * TILES;
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
  const u32 feature = has_work ? (tile_index - part.first_tile) * FEATURE_TILES * FEATURES : 0;

  const u32 segments = (p.steps * STEP + SEGMENT - 1) / SEGMENT;
  const u32 rounds = (segments + p.split - 1) / p.split;
  u8* const own = shared + warp * p.warp_bytes;
  float* const scales = reinterpret_cast<float*>(own + Stage::STAGES * STAGE_BYTES);
  Stream<Format, FEATURE_TILES> stream = {
      {part.data + feature * part.row_bytes, part.row_bytes, p.k / Format::BLOCK_ELEMENTS * Format::BLOCK_BYTES,
       part.rows - feature, part.aligned != 0, {}},
      own, turn, p.split, has_work ? segments : 0, 0, 0};
#pragma unroll
  for (u32 half = 0; half < 2 * FEATURE_TILES; half++) stream.work.rows[half] = stream.work.row(lane / 4 + 8 * half);
  stream.begin_next();

  // Rows are prepared while the first weights are under way.
  RowTile rows_here;
  const u32 live = (tokens - token + TOKENS - 1) / TOKENS;
  if (MODE == ONE || (TILES == 1 && p.prepared == nullptr)) {
    const u32 own_rows = MODE == ONE ? 1 : tokens;
    rows_here = Rows<FORM>::tile(shared + p.prepared_offset, p.steps, own_rows);
    const u32 spans = (p.steps + 3) / 4;
    for (u32 i = warp; i < spans * own_rows; i += warps)
      prepare<FORM>(rows_here, i / spans, p.x.data + i / spans * p.x.stride, p.k, p.steps, i % spans, p.vectors != 0);
    barrier();
  } else {
    // A block of one tile is the only one.
    rows_here = Rows<FORM>::tile(const_cast<u8*>(p.prepared) + block_x() * p.prepared_stride, p.steps, PREPARED);
  }

  const LaneRows<TILES, MODE> x(rows_here);

  Sums total[ALL_SUMS];
  clear(total);
  // [warp][tile][lane]; those of the first of the warps that take turns are not used.
  Sums* const partials = reinterpret_cast<Sums*>(shared + p.partials_offset);
  for (u32 round = 0; round < rounds; round++) {
    const u32 segment = round * p.split + turn;
    // [tile of features][tile of tokens]
    Sums sums[FEATURE_TILES][TILES];
#pragma unroll
    for (u32 f = 0; f < FEATURE_TILES; f++) clear(sums[f]);
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
          const u8* rows[2 * FEATURE_TILES];
#pragma unroll
          for (u32 half = 0; half < 2 * FEATURE_TILES; half++)
            rows[half] = staged_row<Format>(stream.work, stage, half, chunk);
          unpack_scales<Format, FEATURE_TILES>(rows, scales);
          warp_barrier();
          if constexpr (MODE == FAST) {
            multiply_rounded<Format, TILES, FEATURE_TILES>(sums, rows, scales, x, live, first, steps);
          } else {
            multiply_blocks<Format, TILES, MODE>(sums[0], rows, scales, x, live, first, steps);
          }
        } else if constexpr (MODE == FAST) {
          multiply_first_planes<Format, TILES, FEATURE_TILES>(sums, stage, x, live, first, steps);
        } else {
          multiply_planes<Format, TILES>(sums[0], stage, x, live, first, steps);
        }
        // The next copies go where this chunk was.
        warp_barrier();
      }
    }
    if (p.split == 1) {
#pragma unroll
      for (u32 i = 0; i < ALL_SUMS; i++) add(total[i], sums[i / TILES][i % TILES]);
      continue;
    }
    if (turn > 0) {
#pragma unroll
      for (u32 i = 0; i < ALL_SUMS; i++) partials[(warp * ALL_SUMS + i) * WARP + lane] = sums[i / TILES][i % TILES];
    }
    barrier();
    if (turn == 0) {
#pragma unroll
      for (u32 i = 0; i < ALL_SUMS; i++) add(total[i], sums[i / TILES][i % TILES]);
      for (u32 other = 1; other < p.split && segment + other < segments; other++) {
#pragma unroll
        for (u32 i = 0; i < ALL_SUMS; i++) add(total[i], partials[((warp + other) * ALL_SUMS + i) * WARP + lane]);
      }
    }
    barrier();
  }
  copy_async_wait<0>();
  if (turn > 0 || !has_work) return;

#pragma unroll
  for (u32 tile = 0; tile < ALL_SUMS; tile++) {
#pragma unroll
    for (u32 i = 0; i < (IS_FEW<MODE> ? 2 : 4); i++) {
      const u32 at = token + (IS_FEW<MODE> ? lane % 4 : tile % TILES * TOKENS + lane % 4 * 2 + i % 2);
      const u32 own_feature = feature + tile / TILES * FEATURES + lane / 4 + (IS_FEW<MODE> ? i : i / 2) * 8;
      if (at < tokens && own_feature < part.rows) store_sum(p, part, own_feature, at, total[tile].d[i]);
    }
  }
}

// Grid (rows, parts of a row).
template <Form form>
DEVICE void prepare_row(const MatmulPrepare& p) {
  const u32 row = block_x();
  if (row >= rows_of(p.rows)) return;
  const u32 span = block_y() * (block_threads() / WARP) + warp_index();
  if (span * 4 >= p.steps) return;
  const RowTile tile = Rows<form>::tile(p.prepared + row / PREPARED * p.prepared_stride, p.steps, PREPARED);
  prepare<form>(tile, row % PREPARED, p.x.data + row * p.x.stride, p.k, p.steps, span, p.vectors != 0);
}

KERNEL(matmul_prepare_integers, MatmulPrepare, THREADS, 1) { prepare_row<INTEGERS>(p); }
KERNEL(matmul_prepare_parts, MatmulPrepare, THREADS, 1) { prepare_row<PARTS>(p); }
KERNEL(matmul_prepare_rounded, MatmulPrepare, THREADS, 1) { prepare_row<ROUNDED>(p); }
KERNEL(matmul_prepare_quads, MatmulPrepare, THREADS, 1) { prepare_row<QUADS>(p); }

#define PRODUCT(name, Format)                                                      \
  KERNEL(matvec_##name, Matmul, THREADS, 2) { multiply<Format, 1, PRECISE>(p); }   \
  KERNEL(matmul_##name, Matmul, THREADS, 1) { multiply<Format, MATMUL_TILES, PRECISE>(p); }
#define PRODUCT_OF_FEW(name, Format)                                           \
  KERNEL(matvec_one_##name, Matmul, THREADS, 2) { multiply<Format, 1, ONE>(p); } \
  KERNEL(matvec_few_##name, Matmul, THREADS, 2) { multiply<Format, 1, FEW>(p); }

FOR_EACH_PLAIN_FORMAT(PRODUCT)
FOR_EACH_BLOCK_FORMAT(PRODUCT)
FOR_EACH_BLOCK_FORMAT(PRODUCT_OF_FEW)

#if CUDA_ARCH >= 80
// Turing has no product of bfloat16 that is worth the name.
#define PRODUCT_OF_ROUNDED(name, Format) \
  KERNEL(matmul_fast_##name, Matmul, THREADS, 1) { multiply<Format, MATMUL_TILES, FAST>(p); }

FOR_EACH_PLAIN_FORMAT(PRODUCT_OF_ROUNDED)
FOR_EACH_BLOCK_FORMAT(PRODUCT_OF_ROUNDED)
#endif
