// Device and pinned host memory of the emulated devices.
#pragma once

#include "../types.h"

namespace emulator {

// What the emulated device says it has.
static constexpr u64 MEMORY_BYTES = u64(16) << 30;

// Memory full of NaN patterns between pages that may not be touched; null when there is not enough.
void* allocate(u64 bytes, bool on_device);

enum class Freed { ok, unknown, harmed };

// `harmed`: something was written next to the allocation, between it and its guard pages.
Freed release(void* memory);

u64 free_bytes();

// Whether `bytes` from `memory` lie in one allocation.
bool is_allocated(const void* memory, u64 bytes);

}  // namespace emulator
