// Device and pinned host memory of the emulated devices.
#pragma once

#include "../types.h"

namespace emulator {

// What an emulated device says it has: 16 GiB, or as many bytes as MISTRALRS_EMULATED_MEMORY says.
u64 memory_bytes();

// Memory full of NaN patterns between pages that may not be touched; null when there is not enough.
void* allocate(u64 bytes, bool on_device);

enum class Freed { ok, unknown, harmed };

// `harmed`: something was written next to the allocation, between it and its guard pages.
Freed release(void* memory);

u64 free_bytes();

// Sets bytes of an allocation. Zeros of whole pages of a large one take no memory.
void fill(void* memory, u8 value, u64 bytes);

// Whether `bytes` from `memory` lie in one allocation.
bool is_allocated(const void* memory, u64 bytes);

}  // namespace emulator
