// Switching between the stacks of one host thread.
#pragma once

namespace emulator {

// Keeps the present stack pointer in `*from` and goes on at `to`, a value that an earlier switch kept.
extern "C" void emulator_switch(void** from, void* to);

// A stack that calls `entry` when it is switched to for the first time; `entry` never returns.
void* prepare_stack(void* top, void (*entry)());

}  // namespace emulator
