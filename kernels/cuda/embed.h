/* Parameters of `embed_<dtype>`. */
#ifndef MISTRAL_EMBED_H
#define MISTRAL_EMBED_H

#include "types.h"

struct Embed {
  struct Leading rows;
  u32 op;
  u32 vocabulary;
  struct Matrix out;
  const u8 *table;
  u64 row_bytes;
  const i32 *ids;
  u32 width;
  float scale;
};

#endif
