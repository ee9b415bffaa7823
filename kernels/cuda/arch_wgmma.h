// Hopper's matrix instruction: four warps multiply 64 rows from their registers by 8 to 256 tokens in shared memory.
#pragma once

namespace awqbench::arch {

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define AWQBENCH_D4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define AWQBENCH_D16(n) AWQBENCH_D4(n), AWQBENCH_D4(n + 1), AWQBENCH_D4(n + 2), AWQBENCH_D4(n + 3)
#define AWQBENCH_R8 "%0, %1, %2, %3"
#define AWQBENCH_R16 AWQBENCH_R8 ", %4, %5, %6, %7"
#define AWQBENCH_R32 AWQBENCH_R16 ", %8, %9, %10, %11, %12, %13, %14, %15"
#define AWQBENCH_R64 AWQBENCH_R32 ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define AWQBENCH_R96 AWQBENCH_R64 \
    ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47"
#define AWQBENCH_R128 AWQBENCH_R96 \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define AWQBENCH_R256 AWQBENCH_R128 \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79" \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95" \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111" \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
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
    static_assert(NT == 1 || NT == 2 || NT == 4 || NT == 8 || NT == 12 || NT == 16 || NT == 32, "8 NT tokens");
    if constexpr (NT == 1) {
        AWQBENCH_WGMMA_TYPES(8, AWQBENCH_R8, 4, 5, 6, 7, 8, 9, AWQBENCH_D4(0));
    } else if constexpr (NT == 2) {
        AWQBENCH_WGMMA_TYPES(16, AWQBENCH_R16, 8, 9, 10, 11, 12, 13, AWQBENCH_D4(0), AWQBENCH_D4(1));
    } else if constexpr (NT == 4) {
        AWQBENCH_WGMMA_TYPES(32, AWQBENCH_R32, 16, 17, 18, 19, 20, 21, AWQBENCH_D16(0));
    } else if constexpr (NT == 8) {
        AWQBENCH_WGMMA_TYPES(64, AWQBENCH_R64, 32, 33, 34, 35, 36, 37, AWQBENCH_D16(0), AWQBENCH_D16(4));
    } else if constexpr (NT == 12) {
        AWQBENCH_WGMMA_TYPES(96, AWQBENCH_R96, 48, 49, 50, 51, 52, 53, AWQBENCH_D16(0), AWQBENCH_D16(4), AWQBENCH_D16(8));
    } else if constexpr (NT == 16) {
        AWQBENCH_WGMMA_TYPES(128, AWQBENCH_R128, 64, 65, 66, 67, 68, 69, AWQBENCH_D16(0), AWQBENCH_D16(4), AWQBENCH_D16(8),
                             AWQBENCH_D16(12));
    } else {
        AWQBENCH_WGMMA_TYPES(256, AWQBENCH_R256, 128, 129, 130, 131, 132, 133, AWQBENCH_D16(0), AWQBENCH_D16(4),
                             AWQBENCH_D16(8), AWQBENCH_D16(12), AWQBENCH_D16(16), AWQBENCH_D16(20), AWQBENCH_D16(24),
                             AWQBENCH_D16(28));
    }
}
#undef AWQBENCH_WGMMA_TYPES
#undef AWQBENCH_WGMMA
#undef AWQBENCH_R256
#undef AWQBENCH_R128
#undef AWQBENCH_R96
#undef AWQBENCH_R64
#undef AWQBENCH_R32
#undef AWQBENCH_R16
#undef AWQBENCH_R8
#undef AWQBENCH_D16
#undef AWQBENCH_D4

// Before the first of a batch: registers written by ordinary instructions are there.
AWQBENCH_DEVICE void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
// The batch ends here; all of it is done.
AWQBENCH_DEVICE void group_wait() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
}
// The same in two steps, so that other work fits between: the batch ends; all but the COUNT newest batches are done.
AWQBENCH_DEVICE void group_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int COUNT>
AWQBENCH_DEVICE void group_wait_but() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(COUNT) : "memory");
}
// Four warps give registers back to their block, or take them: each thread may use COUNT from here on.
template <int COUNT>
AWQBENCH_DEVICE void keep_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT>
AWQBENCH_DEVICE void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}
// The 128 threads of a warpgroup wait for each other; `group` counts the warpgroups of a block.
AWQBENCH_DEVICE void sync_group(int group) { asm volatile("bar.sync %0, 128;" ::"r"(group + 1) : "memory"); }
// Four 8x8 matrices of 16-bit elements, transposed: lane 8 i + j gives the address of column j of matrix i.
AWQBENCH_DEVICE void store_columns(Shared column, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(column), "r"(r[0]), "r"(r[1]),
                 "r"(r[2]), "r"(r[3])
                 : "memory");
}
// What this thread has written to shared memory, made visible to the matrix units; then comes a barrier.
AWQBENCH_DEVICE void fence_for_group() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#else  // never launched on another chip
template <int D, int NT>
AWQBENCH_DEVICE void group_multiply(float (&)[NT][4], const Pair (&)[4], uint64_t, bool) { __trap(); }
AWQBENCH_DEVICE void group_fence() { __trap(); }
AWQBENCH_DEVICE void group_wait() { __trap(); }
AWQBENCH_DEVICE void group_commit() { __trap(); }
template <int COUNT>
AWQBENCH_DEVICE void group_wait_but() { __trap(); }
template <int COUNT>
AWQBENCH_DEVICE void keep_registers() { __trap(); }
template <int COUNT>
AWQBENCH_DEVICE void take_registers() { __trap(); }
AWQBENCH_DEVICE void sync_group(int) { __trap(); }
AWQBENCH_DEVICE void store_columns(Shared, const uint32_t (&)[4]) { __trap(); }
AWQBENCH_DEVICE void fence_for_group() { __trap(); }
#endif

}  // namespace awqbench::arch
