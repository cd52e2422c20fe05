/* Parameters of the kernels that treat every element by itself: `gated_mul_<activation>`, `soft_cap`,
 * `gather_rows`. */
#ifndef MISTRAL_POINTWISE_H
#define MISTRAL_POINTWISE_H

#include "types.h"

struct GatedMul {
  struct Leading rows;
  struct Matrix out;
  struct Matrix gate_up;
  u32 width;
  u32 spare;
};

struct SoftCap {
  struct Leading rows;
  struct Matrix x;
  u32 width;
  float cap;
};

struct GatherRows {
  struct Leading rows;
  struct Leading x_rows;
  struct Matrix out;
  struct Matrix x;
  const i32 *indices;
  u32 width;
  u32 op;
};

#endif
