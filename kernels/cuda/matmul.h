/* Parameters of `matvec_<dtype>`, `matvec_one_<dtype>`, `matvec_few_<dtype>`, `matmul_<dtype>` and
 * `matmul_fast_<dtype>`, which share a body, and of `matmul_prepare_<form>`. */
#ifndef MISTRAL_MATMUL_H
#define MISTRAL_MATMUL_H

#include "types.h"

enum {
  /* Columns of weights that a warp multiplies at a time: the height of a matrix instruction. */
  MATMUL_FEATURES = 16,
  /* Tokens of a fragment: the width of a matrix instruction. */
  MATMUL_TOKENS = 8,
  /* The same of `matmul_fast_<dtype>`: rows of x that it has loaded serve two of them. */
  MATMUL_FAST_FEATURES = 32,
  /* Tokens of `matvec_few_<dtype>`. */
  MATMUL_FEW = 4,
  /* Fragments of tokens of a warp in `matmul_<dtype>`; one in `matvec_<dtype>`. */
  MATMUL_TILES = 8,
  /* Elements of k of a step: the depth of an integer instruction. */
  MATMUL_STEP = 32,
  /* Elements of k that are summed by themselves before they join the rest. The order of a sum is: within a
   * segment one step after the other, then one segment after the other, whatever the number of rows. */
  MATMUL_SEGMENT = 256,
  /* Elements of a row of x that share a scale beside block-quantised weights: a step, or some that divide a
   * segment. `kernels/cpu/activations.zig` and the tests' reference have the same. */
  MATMUL_GROUP = 128,
  MATMUL_WARPS = 8,
};

/* One weight: `rows` rows, `row_bytes` apart. */
struct MatmulPart {
  const u8 *data;
  u64 row_bytes;
  /* Null without one. */
  const float *bias;
  u32 rows;
  /* Column of out where this weight's rows begin. */
  u32 column;
  /* The tile of MATMUL_FEATURES or MATMUL_FAST_FEATURES rows, counted over all parts, that this weight begins with. */
  u32 first_tile;
  /* Whether rows begin where asynchronous copies and the format's words may. */
  u32 aligned;
};

struct Matmul {
  struct Leading rows;
  struct Matrix out;
  struct Matrix x;
  /* data is null without one. */
  struct Matrix residual;
  /* x as `matmul_prepare_<form>` left it, or null: then every block prepares its rows in shared memory. */
  const u8 *prepared;
  /* Bytes of MATMUL_TOKENS * MATMUL_TILES prepared rows. */
  u64 prepared_stride;
  u32 k;
  /* Steps of k, the last one perhaps not full. */
  u32 steps;
  /* Warps of a block that take turns at the segments of the same features. */
  u32 split;
  /* Whether rows of x begin at multiples of 16 bytes and k is a multiple of four. */
  u32 vectors;
  u32 parts_count;
  u32 tiles;
  /* Shared memory: what each warp stages weights in, then the partial sums, then the rows a block prepares. */
  u32 warp_bytes;
  u32 partials_offset;
  u32 prepared_offset;
  u32 spare;
  struct MatmulPart parts[3];
};

struct MatmulPrepare {
  struct Leading rows;
  struct Matrix x;
  u8 *prepared;
  u64 prepared_stride;
  u32 k;
  u32 steps;
  u32 vectors;
  u32 spare;
};

#endif
