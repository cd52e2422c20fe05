// One launch at a time: the calling thread and a few others take blocks from a counter. Launches of few threads
// run on the calling thread alone. An access outside every allocation ends the launch instead of the process.
#include "grid.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

namespace emulator {

namespace {

constexpr u32 HELPERS_MAX = 7;
constexpr u64 THREADS_ALONE = 8192;

struct Job {
  const Launch* launch;
  u64 blocks;
  u64 next;
  u32 failed;
};

pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
Job* job;
u64 generation;
u32 helpers;
u32 busy;

struct sigaction previous[2];
constexpr int SIGNALS[2] = {SIGSEGV, SIGBUS};

void on_fault(int number, siginfo_t* information, void* context) {
  if (in_fiber()) fail("access to %p, which is outside every allocation", information->si_addr);
  struct sigaction& before = previous[number == SIGSEGV ? 0 : 1];
  if (before.sa_flags & SA_SIGINFO) return before.sa_sigaction(number, information, context);
  // The default action, at the instruction that faulted.
  sigaction(number, &before, nullptr);
}

void watch_faults(bool on) {
  for (int i = 0; i < 2; i++) {
    if (!on) {
      sigaction(SIGNALS[i], &previous[i], nullptr);
      continue;
    }
    struct sigaction action = {};
    action.sa_sigaction = on_fault;
    // The handler leaves by switching stacks and never returns: the signal must not stay blocked.
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGNALS[i], &action, &previous[i]);
  }
}

void work(Job* own) {
  Worker* const self = this_worker();
  const Launch& launch = *own->launch;
  for (;;) {
    const u64 taken = __atomic_fetch_add(&own->next, 1, __ATOMIC_RELAXED);
    if (taken >= own->blocks || __atomic_load_n(&own->failed, __ATOMIC_RELAXED) != 0) return;
    const u64 block = launch.reversed ? own->blocks - 1 - taken : taken;
    const u32 x = static_cast<u32>(block % launch.grid[0]);
    const u32 y = static_cast<u32>(block / launch.grid[0] % launch.grid[1]);
    const u32 z = static_cast<u32>(block / launch.grid[0] / launch.grid[1]);
    if (!run_block(self, launch, x, y, z)) __atomic_store_n(&own->failed, 1, __ATOMIC_RELAXED);
  }
}

void* help(void*) {
  u64 seen = 0;
  pthread_mutex_lock(&lock);
  for (;;) {
    while (generation == seen || job == nullptr) {
      seen = generation;
      pthread_cond_wait(&wake, &lock);
    }
    seen = generation;
    Job* const own = job;
    busy++;
    pthread_mutex_unlock(&lock);
    work(own);
    pthread_mutex_lock(&lock);
    if (--busy == 0) pthread_cond_signal(&idle);
  }
}

void start_helpers() {
  const long processors = sysconf(_SC_NPROCESSORS_ONLN);
  while (helpers < HELPERS_MAX && helpers + 1 < processors) {
    pthread_t thread;
    if (pthread_create(&thread, nullptr, help, nullptr) != 0) return;
    pthread_detach(thread);
    helpers++;
  }
}

}  // namespace

bool run_grid(const Launch& launch) {
  Job own = {&launch, u64(launch.grid[0]) * launch.grid[1] * launch.grid[2], 0, 0};
  watch_faults(true);
  if (own.blocks > 1 && own.blocks * launch.threads > THREADS_ALONE) {
    start_helpers();
    pthread_mutex_lock(&lock);
    job = &own;
    generation++;
    pthread_cond_broadcast(&wake);
    pthread_mutex_unlock(&lock);
    work(&own);
    pthread_mutex_lock(&lock);
    job = nullptr;
    while (busy > 0) pthread_cond_wait(&idle, &lock);
    pthread_mutex_unlock(&lock);
  } else {
    work(&own);
  }
  watch_faults(false);
  return own.failed == 0;
}

}  // namespace emulator
