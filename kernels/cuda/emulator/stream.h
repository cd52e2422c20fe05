// What a library beside the driver may do with its streams.
#pragma once

#include "../types.h"

namespace emulator {

// Runs `run` with a copy of `bytes` bytes at `memory` in the order of the stream, now or whenever the graph that the
// stream is captured into is launched. Gives a CUresult; `run` gives false after `fail`.
int submit_call(void* stream, bool (*run)(const void* memory), const void* memory, u64 bytes);

// Whether the calling thread has a context that did not fail.
bool is_usable();

}  // namespace emulator
