// The registers that a function call must keep, by hand: `ucontext` would make two system calls per switch.
#include "fibers.h"

#include "../types.h"

#if defined(__x86_64__)
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,@function
emulator_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  retq
.size emulator_switch, .-emulator_switch
)");

void* emulator::prepare_stack(void* top, void (*entry)()) {
  u64* pointer = reinterpret_cast<u64*>(reinterpret_cast<u64>(top) & ~u64(15));
  // A function begins 8 bytes off a multiple of 16, as after a call.
  *--pointer = 0;
  *--pointer = reinterpret_cast<u64>(entry);
  for (int i = 0; i < 6; i++) *--pointer = 0;
  return pointer;
}
#elif defined(__aarch64__)
asm(R"(
.text
.globl emulator_switch
.hidden emulator_switch
.type emulator_switch,%function
emulator_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
)");

void* emulator::prepare_stack(void* top, void (*entry)()) {
  u64* pointer = reinterpret_cast<u64*>(reinterpret_cast<u64>(top) & ~u64(15)) - 20;
  for (int i = 0; i < 20; i++) pointer[i] = 0;
  pointer[11] = reinterpret_cast<u64>(entry);
  return pointer;
}
#else
#error "the emulator has no stack switch for this processor"
#endif
