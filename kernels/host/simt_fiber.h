// Fibers: one per CUDA thread, each with a stack of its own, switched by hand.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

namespace simt {

#if defined(__x86_64__)
// Saves what a call must preserve, changes stacks, restores. ucontext would make two system calls of it.
extern "C" void simt_switch(void** save, void* load);
asm(R"(
.text
.weak simt_switch
.type simt_switch, @function
simt_switch:
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
    ret
.size simt_switch, .-simt_switch
)");
#endif

class Fiber {
public:
    explicit Fiber(std::size_t stack_bytes = 128 * 1024) : bytes_(stack_bytes), stack_(new char[stack_bytes]) {}

    // `body` must not return before its fiber has been left for good: it ends with a call of leave().
    void prepare(void (*body)()) {
#if defined(__x86_64__)
        auto top = (reinterpret_cast<uintptr_t>(stack_.get()) + bytes_) & ~uintptr_t{15};
        void** p = reinterpret_cast<void**>(top);
        *--p = nullptr;                          // alignment: a function starts with its return address at 16 n + 8
        *--p = reinterpret_cast<void*>(body);    // where the first switch returns to
        for (int i = 0; i < 6; ++i) *--p = nullptr;
        here_ = p;
#else
        getcontext(&here_);
        here_.uc_stack.ss_sp = stack_.get();
        here_.uc_stack.ss_size = bytes_;
        here_.uc_link = nullptr;
        makecontext(&here_, body, 0);
#endif
    }
    void enter() {
#if defined(__x86_64__)
        simt_switch(&caller_, here_);
#else
        swapcontext(&caller_, &here_);
#endif
    }
    void leave() {
#if defined(__x86_64__)
        simt_switch(&here_, caller_);
#else
        swapcontext(&here_, &caller_);
#endif
    }

private:
    std::size_t bytes_;
    std::unique_ptr<char[]> stack_;
#if defined(__x86_64__)
    void *here_ = nullptr, *caller_ = nullptr;
#else
    ucontext_t here_, caller_;
#endif
};

}  // namespace simt
