// The beginning of a step: the live dimensions go to the device, and so do the rows of the step's inputs, which
// the host wrote into memory that it shares with the device. Reading them once here, over the bus, is cheaper
// than in every layer.
#include "device.cuh"
#include "step.h"

KERNEL(step_begin, StepBegin, 32, 1) {
  const u32 t = thread_x();
  if (t < DIMS_MAX) p.step->dims[t] = p.host_dims[t];
  if (t == 0) {
    p.step->fault = FAULT_NONE;
    p.step->host_fault = p.host_fault;
  }
}

// grid: x over the bytes of a range, y over the ranges.
KERNEL(step_stage, StepStage, 256, 1) {
  const StagedRange& range = p.ranges[block_y()];
  const u32 rows = rows_of(range.rows);
  if (rows == 0) return;
  const u64 bytes = (rows - 1) * range.stride + range.row_bytes;
  const u64 words = bytes / 4;
  const u32* source = reinterpret_cast<const u32*>(range.source);
  u32* target = reinterpret_cast<u32*>(range.target);
  for (u64 i = u64(block_x()) * block_threads() + thread_x(); i < words; i += u64(grid_x()) * block_threads()) {
    target[i] = source[i];
  }
}
