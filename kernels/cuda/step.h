/* Parameters of the kernel that begins a step. */
#ifndef MISTRAL_STEP_H
#define MISTRAL_STEP_H

#include "types.h"

/* Rows of an input tensor, copied from host-visible memory to the device. */
struct StagedRange {
  struct Leading rows;
  const u8 *source;
  u8 *target;
  /* Bytes from one row to the next, and bytes of a row, in both places. */
  u64 stride;
  u64 row_bytes;
};

struct StepBegin {
  struct Step *step;
  /* Host-visible: DIMS_MAX words, then the word for faults. */
  const u32 *host_dims;
  u32 *host_fault;
};

struct StepStage {
  struct Step *step;
  /* In device memory, one per block_y. */
  const struct StagedRange *ranges;
};

#endif
