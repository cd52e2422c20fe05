/* Parameters of `rope_table` and of `rope_halves` and `rope_pairs`. */
#ifndef MISTRAL_ROPE_H
#define MISTRAL_ROPE_H

#include "types.h"

struct RopeTable {
  struct Leading rows;
  struct Matrix out;
  const i32 *positions;
  const float *frequencies;
  u32 pairs;
  float scale;
};

struct Rope {
  struct Leading rows;
  struct Matrix x;
  struct Matrix table;
  u32 heads;
  u32 head_dim;
  u32 pairs;
  u32 spare;
};

#endif
