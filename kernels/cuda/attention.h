/* Parameters of the kernels of `paged_attention`. */
#ifndef MISTRAL_ATTENTION_H
#define MISTRAL_ATTENTION_H

#include "types.h"

struct PagedAttention {
  struct Leading tokens;
  struct Leading sequences;
  struct Matrix out;
  struct Matrix q;
  const u8 *k_cache;
  const u8 *v_cache;
  const i32 *block_tables;
  u64 block_table_stride;
  const i32 *sequence_starts;
  const i32 *context_lengths;
  /* null without sinks */
  const float *sinks;
  /* Room for `partials_max` partials of `partial_floats`: the weighted sum of values, padded to a multiple of
   * four, then the largest score (in powers of two) and the sum of exponentials, and two floats unused. */
  float *partials;
  u64 partials_max;
  u32 partial_floats;
  u32 op;
  u32 blocks;
  u32 block_size;
  /* Keys of a whole block table. */
  u32 capacity;
  u32 heads;
  u32 kv_heads;
  u32 group;
  u32 head_dim;
  u32 sliding_window;
  /* Keys of a partial: four strips. */
  u32 range_keys;
  /* Times the logarithm of e to base two; divided by the cap instead where there is one. */
  float score_scale;
  /* The cap times that logarithm; 0 without a cap. */
  float soft_cap;
  /* Bytes of a row of the cache. */
  u32 row_bytes;
  /* Whether rows of the cache, rows of q and pairs of out can be moved as vectors. */
  u32 cache_vectors;
  u32 q_vectors;
  u32 out_pairs;
  /* Whether `attend_spans` takes every sequence, because `attend_tiles` is not launched beside it. */
  u32 every_sequence;
  /* Pieces of each warp's ring in `attend_spans`: 2 or 3. */
  u32 ring_pieces;
};

#endif
