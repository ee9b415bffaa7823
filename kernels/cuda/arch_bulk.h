// Hopper's and later chips' bulk copies and the barriers in shared memory that they complete on.
#pragma once

namespace awqbench::arch {

#if __CUDA_ARCH__ >= 900
AWQBENCH_DEVICE void barrier_init(Shared barrier, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
// Barriers just initialized, made visible to the copy engine.
AWQBENCH_DEVICE void barrier_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
// This thread's arrival, and the bytes of copies that the phase waits for.
AWQBENCH_DEVICE void barrier_expect(Shared barrier, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}
AWQBENCH_DEVICE void barrier_arrive(Shared barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
AWQBENCH_DEVICE void barrier_wait(Shared barrier, uint32_t parity) {
    asm volatile(
        "{\n"
        ".reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n"
        "}\n" ::"r"(barrier),
        "r"(parity)
        : "memory");
}
// Multiples of 16 bytes, both ends aligned to 16.
AWQBENCH_DEVICE void bulk_copy(Shared to, const void* from, int bytes, Shared barrier, uint64_t policy) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
            to),
        "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
        : "memory");
}
#else  // never launched on an older chip
AWQBENCH_DEVICE void barrier_init(Shared, int) { __trap(); }
AWQBENCH_DEVICE void barrier_fence() { __trap(); }
AWQBENCH_DEVICE void barrier_expect(Shared, int) { __trap(); }
AWQBENCH_DEVICE void barrier_arrive(Shared) { __trap(); }
AWQBENCH_DEVICE void barrier_wait(Shared, uint32_t) { __trap(); }
AWQBENCH_DEVICE void bulk_copy(Shared, const void*, int, Shared, uint64_t) { __trap(); }
#endif

}  // namespace awqbench::arch
