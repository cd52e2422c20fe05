/* Parameters of the kernels around products that cuBLASLt computes: `library_rows_<form>` before them,
 * `library_weights_<dtype>` for block-quantised weights, `library_finish` behind them. */
#ifndef MISTRAL_MATMUL_LIBRARY_H
#define MISTRAL_MATMUL_LIBRARY_H

#include "types.h"

struct LibraryRows {
  struct Leading rows;
  struct Matrix x;
  /* [part][row][element] of 16 bits. */
  u16 *out;
  /* What each row was divided by, a power of two; null where no row is. */
  float *scales;
  /* Elements between parts and between rows. */
  u64 part_stride;
  u64 row_stride;
  u32 k;
  /* Whether rows of x begin at multiples of 16 bytes and k is a multiple of four. */
  u32 vectors;
};

struct LibraryWeights {
  const u8 *data;
  u64 row_bytes;
  /* [row][element] of bfloat16. */
  u16 *out;
  u64 row_stride;
  u32 rows;
  u32 k;
};

/* out = sums * scale of the row + bias + residual, of some columns. */
struct LibraryFinish {
  struct Leading rows;
  struct Matrix out;
  /* May be out. */
  struct Matrix sums;
  /* data is null without one. */
  struct Matrix residual;
  /* Null without. */
  const float *scales;
  const float *bias;
  u32 columns;
  u32 spare;
};

#endif
