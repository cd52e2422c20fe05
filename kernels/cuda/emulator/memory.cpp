// Every allocation ends as close before a guard page as its alignment lets it; what is left between them, and
// before the allocation, holds a pattern that is looked at when the memory is freed.
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

namespace emulator {

namespace {

constexpr u64 PAGE = 4096;
// Of cuMemAlloc.
constexpr u64 ALIGNMENT = 256;
constexpr u8 POISON = 0xff;
constexpr u8 CANARY = 0xa5;
// Poison is for programs of tests; the pages of larger memory come into being when they are touched.
constexpr u64 POISONED_BYTES_MAX = u64(64) << 20;

struct Allocation {
  u8* mapping;
  u64 mapped;
  u8* memory;
  u64 bytes;
  bool on_device;
  Allocation* next;
};

Allocation* allocations;
u64 used;

u64 round_up(u64 value, u64 unit) { return (value + unit - 1) / unit * unit; }

bool is_canary(const u8* from, const u8* to) {
  for (; from < to; from++)
    if (*from != CANARY) return false;
  return true;
}

}  // namespace

u64 memory_bytes() {
  static u64 bytes;
  if (bytes == 0) {
    const char* const text = getenv("MISTRALRS_EMULATED_MEMORY");
    bytes = text == nullptr ? u64(16) << 30 : strtoull(text, nullptr, 10);
  }
  return bytes;
}

void* allocate(u64 bytes, bool on_device) {
  if (bytes == 0 || bytes > memory_bytes() || (on_device && used + bytes > memory_bytes())) return nullptr;
  const u64 inside = round_up(bytes, PAGE);
  void* const mapping =
      mmap(nullptr, inside + 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  u8* const first = static_cast<u8*>(mapping) + PAGE;
  mprotect(mapping, PAGE, PROT_NONE);
  mprotect(first + inside, PAGE, PROT_NONE);
  u8* const memory = first + inside - round_up(bytes, ALIGNMENT);
  memset(first, CANARY, static_cast<u64>(memory - first));
  memset(memory + bytes, CANARY, static_cast<u64>(first + inside - memory) - bytes);
  if (bytes <= POISONED_BYTES_MAX) memset(memory, POISON, bytes);
  Allocation* const allocation = static_cast<Allocation*>(malloc(sizeof(Allocation)));
  *allocation = {static_cast<u8*>(mapping), inside + 2 * PAGE, memory, bytes, on_device, allocations};
  allocations = allocation;
  if (on_device) used += bytes;
  return memory;
}

Freed release(void* memory) {
  for (Allocation** at = &allocations; *at != nullptr; at = &(*at)->next) {
    Allocation* const found = *at;
    if (found->memory != memory) continue;
    const u8* const end = found->mapping + found->mapped - PAGE;
    const bool intact = is_canary(found->mapping + PAGE, found->memory) && is_canary(found->memory + found->bytes, end);
    *at = found->next;
    if (found->on_device) used -= found->bytes;
    munmap(found->mapping, found->mapped);
    free(found);
    return intact ? Freed::ok : Freed::harmed;
  }
  return Freed::unknown;
}

u64 free_bytes() { return memory_bytes() - used; }

void fill(void* memory, u8 value, u64 bytes) {
  if (value != 0 || bytes <= POISONED_BYTES_MAX) {
    memset(memory, value, bytes);
    return;
  }
  u8* const from = static_cast<u8*>(memory);
  u8* const to = from + bytes;
  u8* const first = reinterpret_cast<u8*>(round_up(reinterpret_cast<u64>(from), PAGE));
  u8* const last = first + static_cast<u64>(to - first) / PAGE * PAGE;
  memset(from, 0, static_cast<u64>(first - from));
  if (madvise(first, static_cast<u64>(last - first), MADV_DONTNEED) != 0) memset(first, 0, static_cast<u64>(last - first));
  memset(last, 0, static_cast<u64>(to - last));
}

bool is_allocated(const void* memory, u64 bytes) {
  const u8* const from = static_cast<const u8*>(memory);
  for (const Allocation* at = allocations; at != nullptr; at = at->next)
    if (from >= at->memory && bytes <= at->bytes && from + bytes <= at->memory + at->bytes) return true;
  return false;
}

}  // namespace emulator
