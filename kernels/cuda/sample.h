/* Parameters of the four kernels of `sample`, and what they leave for each other. */
#ifndef MISTRAL_SAMPLE_H
#define MISTRAL_SAMPLE_H

#include "types.h"

enum {
  /* Threads of a block, bins of a histogram, and logits of a part of the vocabulary, eight a thread. */
  SAMPLE_THREADS = 512,
  SAMPLE_BINS = 512,
  SAMPLE_PART = 4096,
  /* Words of a row of parameters, and where each lies in it (`SAMPLING_PARAMETER` of the op table). */
  SAMPLE_WORDS = 16,
  SAMPLE_TEMPERATURE = 0,
  SAMPLE_TOP_K = 1,
  SAMPLE_TOP_P = 2,
  SAMPLE_MIN_P = 3,
  SAMPLE_SEED_LOW = 4,
  SAMPLE_SEED_HIGH = 5,
  SAMPLE_POSITION = 6,
  SAMPLE_LOGPROB_COUNT = 7,
  SAMPLE_FORCED_TOKEN = 8,
};

/* What is still to be done with a row. */
enum SampleTask {
  /* Nothing: a wrong input, or finished. */
  SAMPLE_NOTHING = 0,
  SAMPLE_FORCED = 1,
  SAMPLE_GREEDY = 2,
  /* To be drawn, once its greatest logit is known: then there is one. */
  SAMPLE_MEASURE = 3,
  SAMPLE_DRAW = 4,
};

/* The log-probability of a logit is logit - largest - log_sum. */
struct SampleNormaliser {
  /* Logarithm of the sum of e^(logit - largest). */
  double log_sum;
  float largest;
  u32 spare;
};

/* What the kernels know of a row. */
struct SampleRow {
  u32 task;
  float inverse_temperature;
  /* 0 is off. */
  u32 top_k;
  float top_p;
  float min_p;
  /* -1 is none. */
  i32 logprob_count;
  i32 forced_token;
  /* The row's part of the list of adjustments. */
  u32 list_begin;
  u32 list_count;
  /* Blocks that have finished their part, in each of the kernels that split a row. */
  u32 finished[3];
  /* Of [0, 1). */
  double chance;
  /* The model's own distribution, when log-probabilities are wanted. */
  struct SampleNormaliser own;
  /* Greatest logit after the adjustments. */
  float largest;
  u32 spare;
  /* Sum of all weights, and what lies before bin `first_bin`. */
  u64 mass;
  u64 mass_before;
  u32 count_before;
  /* No filter ends, and no draw falls, outside these bins. */
  u32 first_bin;
  u32 last_bin;
  /* Logits in these bins, and how many of them are on the list of candidates; none when they are too many. */
  u32 candidates;
  u32 listed;
};

/* The model's own distribution in a part of the vocabulary. */
struct SampleShare {
  u64 mass;
  float largest;
  u32 spare;
};

struct Sample {
  struct Leading rows;
  struct Matrix logits;
  i32 *tokens;
  float *logprobs;
  i32 *top_tokens;
  float *top_logprobs;
  u64 top_tokens_stride;
  u64 top_logprobs_stride;
  const i32 *parameters;
  u64 parameters_stride;
  const i32 *adjustment_starts;
  const i32 *adjustment_tokens;
  const float *adjustment_multipliers;
  const float *adjustment_addends;
  /* Workspace, by rows: [rows], [rows, parts], [rows, parts], [rows, parts, top_count_max], [rows, bins] twice,
   * [rows, candidates_max]; and by adjustments: their tokens, and the logits before them. */
  struct SampleRow *states;
  u64 *part_best;
  struct SampleShare *part_shares;
  u64 *part_tops;
  u64 *bin_masses;
  u32 *bin_counts;
  u32 *candidates;
  i32 *list_tokens;
  float *list_originals;
  u32 op;
  u32 vocabulary;
  u32 parts;
  u32 top_count_max;
  u32 adjustments_max;
  u32 candidates_max;
  /* Bits of a token id in a key. */
  u32 id_bits;
  /* Whether every row of logits begins at a multiple of 16 bytes. */
  u32 vectors;
};

#endif
