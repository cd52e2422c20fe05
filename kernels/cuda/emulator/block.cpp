// The scheduler of a block's fibers: warp collectives, barriers, shared memory, and what kernels do wrong.
#include "block.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fibers.h"

namespace emulator {

__thread Worker* worker __attribute__((tls_model("initial-exec")));

namespace {

constexpr u64 STACK_BYTES = 64 << 10;
// Of a multiprocessor's shared memory, what one block may have at most on any device we know.
constexpr u32 SHARED_BYTES_MAX = 227 << 10;
constexpr u32 STATIC_SHARED_BYTES_MAX = 48 << 10;
constexpr u8 POISON = 0xff;

const Kernel* kernels;

char text[512];
u32 text_taken;

void* reserve(u64 bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) {
    fprintf(stderr, "CUDA emulator: no memory for %llu bytes\n", bytes);
    abort();
  }
  return memory;
}

void to_scheduler() {
  Worker* const self = worker;
  emulator_switch(&self->fiber->stack_pointer, self->scheduler);
}

void enter_fiber() {
  Worker* const self = worker;
  self->launch->kernel->body(self->launch->parameters);
  self->fiber->state = State::ended;
  to_scheduler();
  __builtin_unreachable();
}

void resume(Worker* self, Fiber* fiber) {
  self->fiber = fiber;
  emulator_switch(&self->scheduler, fiber->stack_pointer);
  self->fiber = nullptr;
}

void start(Worker* self, Fiber* fiber) {
  const u32 slot = self->free_stacks[--self->free_stack_count];
  fiber->stack = self->stacks + slot * STACK_BYTES;
  fiber->stack_pointer = prepare_stack(fiber->stack + STACK_BYTES, enter_fiber);
  fiber->state = State::runnable;
  fiber->copy_count = 0;
  fiber->copy_group = 0;
  resume(self, fiber);
}

void give_stack_back(Worker* self, Fiber* fiber) {
  if (fiber->stack == nullptr) return;
  self->free_stacks[self->free_stack_count++] = static_cast<u32>((fiber->stack - self->stacks) / STACK_BYTES);
  fiber->stack = nullptr;
}

// What keeps a block from going on, in words.
void describe_deadlock(Worker* self) {
  u32 ended = 0, barriers = 0, collectives = 0;
  for (u32 i = 0; i < self->launch->threads; i++) {
    const State state = self->fibers[i].state;
    ended += state == State::ended;
    barriers += state == State::at_barrier;
    collectives += state == State::at_collective;
  }
  if (__sync_bool_compare_and_swap(&text_taken, 0, 1))
    snprintf(text, sizeof text, "%s block (%u, %u, %u): deadlock: %u threads at a barrier, %u in a warp collective, %u ended",
             self->launch->kernel->name, self->block[0], self->block[1], self->block[2], barriers, collectives, ended);
}

}  // namespace

Kernel::Kernel(const char* name, u32 parameter_bytes, u32 threads_max, void (*body)(const void*))
    : name(name), parameter_bytes(parameter_bytes), threads_max(threads_max), body(body), next(kernels) {
  kernels = this;
}

const Kernel* find_kernel(const char* name) {
  for (const Kernel* kernel = kernels; kernel != nullptr; kernel = kernel->next)
    if (strcmp(kernel->name, name) == 0) return kernel;
  return nullptr;
}

const char* failure_text() { return text; }

void clear_failure() {
  text[0] = 0;
  text_taken = 0;
}

bool in_fiber() { return worker != nullptr && worker->fiber != nullptr; }

void fail(const char* format, ...) {
  Worker* const self = worker;
  if (__sync_bool_compare_and_swap(&text_taken, 0, 1)) {
    const int head = snprintf(text, sizeof text, "%s block (%u, %u, %u) thread %u: ", self->launch->kernel->name,
                              self->block[0], self->block[1], self->block[2], self->fiber->thread);
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text + head, sizeof text - head, format, arguments);
    va_end(arguments);
  }
  self->failed = true;
  to_scheduler();
  __builtin_unreachable();
}

Worker* this_worker() {
  if (worker != nullptr) return worker;
  Worker* const self = static_cast<Worker*>(reserve(sizeof(Worker)));
  self->fibers = static_cast<Fiber*>(reserve(sizeof(Fiber) * BLOCK_THREADS_MAX));
  self->stacks = static_cast<u8*>(reserve(STACK_BYTES * BLOCK_THREADS_MAX));
  self->static_shared = static_cast<u8*>(reserve(STATIC_SHARED_BYTES_MAX));
  // Dynamic shared memory ends where nothing may be touched.
  self->dynamic_area = static_cast<u8*>(reserve((256 << 10) + 4096));
  mprotect(self->dynamic_area + (256 << 10), 4096, PROT_NONE);
  for (u32 i = 0; i < BLOCK_THREADS_MAX; i++) self->free_stacks[i] = BLOCK_THREADS_MAX - 1 - i;
  self->free_stack_count = BLOCK_THREADS_MAX;
  worker = self;
  return self;
}

bool run_block(Worker* self, const Launch& launch, u32 x, u32 y, u32 z) {
  self->launch = &launch;
  self->block[0] = x;
  self->block[1] = y;
  self->block[2] = z;
  self->failed = false;
  self->static_count = 0;
  self->static_shared_bytes = 0;
  for (Barrier& barrier : self->barriers) barrier = {0, 0};
  const u32 shared = (launch.shared_bytes + 127) & ~u32(127);
  if (shared > SHARED_BYTES_MAX) return false;
  self->dynamic_shared = self->dynamic_area + (256 << 10) - shared;
  memset(self->dynamic_shared, POISON, shared);

  const u32 threads = launch.threads;
  for (u32 i = 0; i < threads; i++) {
    self->fibers[i].thread = i;
    self->fibers[i].state = State::idle;
  }
  u32 living = threads;
  while (living > 0 && !self->failed) {
    bool progress = false;
    for (u32 i = 0; i < threads && !self->failed; i++) {
      Fiber* const fiber = &self->fibers[launch.reversed ? threads - 1 - i : i];
      if (fiber->state == State::idle) {
        start(self, fiber);
      } else if (fiber->state == State::runnable) {
        resume(self, fiber);
      } else {
        continue;
      }
      progress = true;
      if (fiber->state == State::ended) {
        give_stack_back(self, fiber);
        living--;
      }
    }
    if (!progress) {
      describe_deadlock(self);
      self->failed = true;
    }
  }
  self->fiber = nullptr;
  for (u32 i = 0; i < threads; i++) {
    if (self->fibers[i].state != State::idle) give_stack_back(self, &self->fibers[i]);
  }
  return !self->failed;
}

void collective(u32 mask, Combine combine, const void* in, void* out) {
  Worker* const self = worker;
  Fiber* const fiber = self->fiber;
  const u32 base = fiber->thread & ~u32(31);
  if ((mask >> (fiber->thread & 31) & 1) == 0) fail("a warp collective's mask 0x%08x lacks the calling lane", mask);
  fiber->mask = mask;
  fiber->combine = combine;
  fiber->in = in;
  fiber->out = out;
  fiber->state = State::at_collective;
  Fiber* lanes[32] = {};
  bool complete = true;
  for (u32 lane = 0; lane < 32; lane++) {
    if ((mask >> lane & 1) == 0) continue;
    if (base + lane >= self->launch->threads) fail("a warp collective names lane %u, which the block lacks", lane);
    Fiber* const other = &self->fibers[base + lane];
    if (other->state == State::ended) fail("a warp collective waits for lane %u, which has ended", lane);
    lanes[lane] = other;
    complete &= other->state == State::at_collective && other->mask == mask && other->combine == combine;
  }
  if (!complete) return to_scheduler();
  combine(lanes);
  for (Fiber* lane : lanes)
    if (lane != nullptr) lane->state = State::runnable;
}

void barrier(u32 id, u32 threads) {
  Worker* const self = worker;
  if (id >= BARRIERS || threads % 32 != 0 || threads > self->launch->threads) {
    // The block's own barrier serves blocks of any size.
    if (id != 0 || threads != self->launch->threads) fail("barrier %u of %u threads", id, threads);
  }
  Barrier& at = self->barriers[id];
  if (at.waiting > 0 && at.expected != threads) fail("barrier %u of %u threads and of %u", id, at.expected, threads);
  at.expected = threads;
  self->fiber->state = State::at_barrier;
  self->fiber->barrier = static_cast<u8>(id);
  if (++at.waiting < threads) return to_scheduler();
  at.waiting = 0;
  for (u32 i = 0; i < self->launch->threads; i++) {
    Fiber& fiber = self->fibers[i];
    if (fiber.state == State::at_barrier && fiber.barrier == id) fiber.state = State::runnable;
  }
}

void* static_shared(const void* key, u64 bytes) {
  Worker* const self = worker;
  for (u32 i = 0; i < self->static_count; i++)
    if (self->statics[i].key == key) return self->statics[i].memory;
  const u64 size = (bytes + 15) & ~u64(15);
  if (self->static_shared_bytes + size > STATIC_SHARED_BYTES_MAX || self->static_count == 64)
    fail("more than %u bytes of static shared memory", STATIC_SHARED_BYTES_MAX);
  u8* const memory = self->static_shared + self->static_shared_bytes;
  memset(memory, POISON, size);
  self->static_shared_bytes += static_cast<u32>(size);
  self->statics[self->static_count++] = {key, memory};
  return memory;
}

void copy_begin(void* target, const void* source, u32 valid) {
  Fiber* const fiber = worker->fiber;
  if ((reinterpret_cast<u64>(target) | reinterpret_cast<u64>(source)) % 16 != 0)
    fail("an asynchronous copy of 16 bytes is not aligned");
  if (fiber->copy_count == COPIES_MAX) fail("more than %u asynchronous copies under way", COPIES_MAX);
  // Whoever reads before it waits finds no number.
  memset(target, POISON, 16);
  fiber->copies[fiber->copy_count++] = {target, source, valid, fiber->copy_group};
}

void copy_commit() { worker->fiber->copy_group++; }

void copy_wait(u32 pending) {
  Fiber* const fiber = worker->fiber;
  u32 kept = 0;
  for (u32 i = 0; i < fiber->copy_count; i++) {
    const Copy copy = fiber->copies[i];
    if (copy.group + pending < fiber->copy_group) {
      memcpy(copy.target, copy.source, copy.valid);
      memset(static_cast<u8*>(copy.target) + copy.valid, 0, 16 - copy.valid);
    } else {
      fiber->copies[kept++] = copy;
    }
  }
  fiber->copy_count = kept;
}

}  // namespace emulator
