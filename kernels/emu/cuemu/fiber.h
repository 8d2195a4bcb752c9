// Switching between computations that each have a stack of their own.
#pragma once

#include <cstddef>

namespace cuemu {

#if defined(__x86_64__) && !defined(CUEMU_UCONTEXT)

// A suspended computation: the stack pointer. What a callee must preserve lies on its stack.
using Context = void*;

extern "C" void cuemu_switch(Context* save, Context to);
asm(R"(
.text
.weak cuemu_switch
.type cuemu_switch,@function
cuemu_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

// A computation that begins with `entry`, which must not return. `top` is the end of its stack, 16-byte aligned.
inline Context prepare(char* stack, size_t size, void (*entry)()) {
  void** sp = reinterpret_cast<void**>(stack + size);
  *--sp = nullptr;                          // keeps the alignment that a call would give
  *--sp = reinterpret_cast<void*>(entry);   // where `ret` goes
  for (int saved = 0; saved < 6; saved++) *--sp = nullptr;
  return sp;
}

}  // namespace cuemu

#else

}  // namespace cuemu
#include <ucontext.h>
namespace cuemu {

// Anywhere else: slower, because every switch asks the kernel for the signal mask.
using Context = ucontext_t*;

inline void cuemu_switch(Context* save, Context to) {
  ucontext_t here;
  *save = &here;
  swapcontext(&here, to);
}

inline Context prepare(char* stack, size_t size, void (*entry)()) {
  size -= sizeof(ucontext_t) + sizeof(ucontext_t) % 16;
  auto* context = reinterpret_cast<ucontext_t*>(stack + size);
  getcontext(context);
  context->uc_stack.ss_sp = stack;
  context->uc_stack.ss_size = size;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

}  // namespace cuemu

#endif
