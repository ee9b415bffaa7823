// Hopper's matrix instruction: four warps multiply 64 rows from their registers by 8 to 64 tokens in shared memory.
#pragma once

namespace awqbench::arch {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define AWQBENCH_D4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define AWQBENCH_R8 "%0, %1, %2, %3"
#define AWQBENCH_R16 AWQBENCH_R8 ", %4, %5, %6, %7"
#define AWQBENCH_R32 AWQBENCH_R16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define AWQBENCH_R64 AWQBENCH_R32 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
// Tokens, type, the registers of d; then those of a, the descriptor and the predicate, by their numbers.
#define AWQBENCH_WGMMA(N, TYPE, R, A0, A1, A2, A3, B, P, ...)                                              \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" #P ", 0;\n"                                    \
                 "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." #TYPE "." #TYPE " {" R "}, {%" #A0      \
                 ", %" #A1 ", %" #A2 ", %" #A3 "}, %" #B ", keep, 1, 1, 0;\n}"                             \
                 : __VA_ARGS__                                                                             \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(tokens), "r"(static_cast<int>(keep)))
#define AWQBENCH_WGMMA_TYPES(N, R, A0, A1, A2, A3, B, P, ...)                              \
    if constexpr (D == kHalf)                                                              \
        AWQBENCH_WGMMA(N, f16, R, A0, A1, A2, A3, B, P, __VA_ARGS__);                      \
    else                                                                                   \
        AWQBENCH_WGMMA(N, bf16, R, A0, A1, A2, A3, B, P, __VA_ARGS__)

// d [64, 8 NT] (+)= a [64, 16] b [16, 8 NT]: `tokens` is b's descriptor, `keep` false starts from zero. Of a warp: the 16
// rows of its place among the four, fragments as those of multiply_add. d and a are the instruction's until group_wait.
template <int D, int NT>
AWQBENCH_DEVICE void group_multiply(float (&d)[NT][4], const Pair (&a)[4], uint64_t tokens, bool keep) {
    static_assert(NT == 1 || NT == 2 || NT == 4 || NT == 8, "8, 16, 32 or 64 tokens");
    if constexpr (NT == 1) {
        AWQBENCH_WGMMA_TYPES(8, AWQBENCH_R8, 4, 5, 6, 7, 8, 9, AWQBENCH_D4(0));
    } else if constexpr (NT == 2) {
        AWQBENCH_WGMMA_TYPES(16, AWQBENCH_R16, 8, 9, 10, 11, 12, 13, AWQBENCH_D4(0), AWQBENCH_D4(1));
    } else if constexpr (NT == 4) {
        AWQBENCH_WGMMA_TYPES(32, AWQBENCH_R32, 16, 17, 18, 19, 20, 21, AWQBENCH_D4(0), AWQBENCH_D4(1), AWQBENCH_D4(2),
                             AWQBENCH_D4(3));
    } else {
        AWQBENCH_WGMMA_TYPES(64, AWQBENCH_R64, 32, 33, 34, 35, 36, 37, AWQBENCH_D4(0), AWQBENCH_D4(1), AWQBENCH_D4(2),
                             AWQBENCH_D4(3), AWQBENCH_D4(4), AWQBENCH_D4(5), AWQBENCH_D4(6), AWQBENCH_D4(7));
    }
}
#undef AWQBENCH_WGMMA_TYPES
#undef AWQBENCH_WGMMA
#undef AWQBENCH_R64
#undef AWQBENCH_R32
#undef AWQBENCH_R16
#undef AWQBENCH_R8
#undef AWQBENCH_D4

// Before the first of a batch: registers written by ordinary instructions are there.
AWQBENCH_DEVICE void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The batch ends here; all of it is done.
AWQBENCH_DEVICE void group_wait() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
// What this thread has written to shared memory, made visible to the matrix units; then comes a barrier.
AWQBENCH_DEVICE void fence_for_group() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else  // never launched on another chip
template <int D, int NT>
AWQBENCH_DEVICE void group_multiply(float (&)[NT][4], const Pair (&)[4], uint64_t, bool) { __trap(); }
AWQBENCH_DEVICE void group_fence() { __trap(); }
AWQBENCH_DEVICE void group_wait() { __trap(); }
AWQBENCH_DEVICE void fence_for_group() { __trap(); }
#endif

}  // namespace awqbench::arch
