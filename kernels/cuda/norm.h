/* Parameters of `rms_norm`. */
#ifndef MISTRAL_NORM_H
#define MISTRAL_NORM_H

#include "types.h"

struct RmsNorm {
  struct Leading rows;
  struct Matrix out;
  struct Matrix x;
  /* data is null without one. */
  struct Matrix residual;
  const float *weight;
  u32 width;
  float epsilon;
  float weight_offset;
  /* Whether every row of every operand begins at a multiple of 16 bytes and has a multiple of four elements. */
  u32 vectors;
};

#endif
