// What the attention kernel uses beside the instructions of arch.h.
#pragma once

namespace awqbench::arch {

// A number that an earlier kernel counts up: from L2, never from what an L1 cache has kept.
AWQBENCH_DEVICE int64_t load_count(const int64_t* from) {
    int64_t r;
    asm volatile("ld.relaxed.gpu.global.s64 %0, [%1];" : "=l"(r) : "l"(from) : "memory");
    return r;
}
AWQBENCH_DEVICE float load_float(const float* from) {
    float r;
    asm volatile("ld.global.f32 %0, [%1];" : "=f"(r) : "l"(from) : "memory");
    return r;
}
AWQBENCH_DEVICE void store8(void* to, uint32_t low, uint32_t high) {
    asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(to), "r"(low), "r"(high) : "memory");
}

AWQBENCH_DEVICE void store_shared_float16(Shared to, uint16_t value) {
    asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(value) : "memory");
}
AWQBENCH_DEVICE void store_shared_pair(Shared to, float low, float high) {
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" ::"r"(to), "f"(low), "f"(high) : "memory");
}
// load_matrices, each 8x8 matrix transposed.
AWQBENCH_DEVICE void load_matrices_turned(Shared row, uint32_t (&r)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

}  // namespace awqbench::arch
