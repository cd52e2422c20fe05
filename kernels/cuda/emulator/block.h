// Runs the threads of a block as fibers of one host thread. A fiber runs until it waits for others (a barrier, a
// warp collective) or ends; then the next one runs. Knows nothing of CUDA's names or of the driver.
#pragma once

#include "../types.h"

namespace emulator {

static constexpr u32 BLOCK_THREADS_MAX = 1024;
static constexpr u32 BARRIERS = 16;
static constexpr u32 COPIES_MAX = 256;

struct Fiber;

// Computes what every lane of a warp collective gets. `lanes[i]` is null for lanes outside the mask.
typedef void (*Combine)(Fiber* const (&lanes)[32]);

enum class State : u8 { idle, runnable, at_barrier, at_collective, ended };

// A copy to shared memory that has begun and is not yet seen.
struct Copy {
  void* target;
  const void* source;
  u32 valid;
  u32 group;
};

struct Fiber {
  void* stack_pointer;
  u8* stack;
  u32 thread;
  State state;
  u8 barrier;
  // The collective that this lane waits in, what it brings and where its result goes.
  u32 mask;
  Combine combine;
  const void* in;
  void* out;
  u32 copy_count;
  u32 copy_group;
  Copy copies[COPIES_MAX];
};

struct Kernel {
  const char* name;
  u32 parameter_bytes;
  u32 threads_max;
  void (*body)(const void* parameters);
  const Kernel* next;

  Kernel(const char* name, u32 parameter_bytes, u32 threads_max, void (*body)(const void*));
};

const Kernel* find_kernel(const char* name);

struct Launch {
  const Kernel* kernel;
  const void* parameters;
  u32 grid[3];
  u32 threads;
  u32 shared_bytes;
  // Threads and blocks in falling order: whoever forgot a barrier gets other results.
  bool reversed;
};

struct Barrier {
  u32 waiting;
  u32 expected;
};

// All that one host thread needs to run blocks.
struct Worker {
  Fiber* fiber;
  const Launch* launch;
  u32 block[3];
  u8* dynamic_shared;
  void* scheduler;
  bool failed;
  Barrier barriers[BARRIERS];
  u32 static_shared_bytes;
  u32 static_count;
  struct {
    const void* key;
    u8* memory;
  } statics[64];
  Fiber* fibers;
  u8* stacks;
  u32 free_stacks[BLOCK_THREADS_MAX];
  u32 free_stack_count;
  u8* static_shared;
  u8* dynamic_area;
};

extern __thread Worker* worker __attribute__((tls_model("initial-exec")));

// Gives the host thread its worker.
Worker* this_worker();

// Runs one block; false when it failed, with the reason in `failure_text`.
bool run_block(Worker* self, const Launch& launch, u32 x, u32 y, u32 z);

// The reason of the first failure since `clear_failure`.
const char* failure_text();
void clear_failure();

// What kernels reach through `hardware.h`.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void collective(u32 mask, Combine combine, const void* in, void* out);
void barrier(u32 id, u32 threads);
void* static_shared(const void* key, u64 bytes);
void copy_begin(void* target, const void* source, u32 valid);
void copy_commit();
void copy_wait(u32 pending);

// From the signal handler: whether this thread runs a fiber, and the way out of it.
bool in_fiber();

}  // namespace emulator
