/* Parameters of `kv_write_<dtype>`. */
#ifndef MISTRAL_CACHE_H
#define MISTRAL_CACHE_H

#include "types.h"

struct KvWrite {
  struct Leading rows;
  struct Matrix k;
  struct Matrix v;
  u8 *k_cache;
  u8 *v_cache;
  const i32 *slots;
  u32 op;
  u32 blocks;
  u32 block_size;
  u32 kv_heads;
  u32 head_dim;
  u32 spare;
};

#endif
