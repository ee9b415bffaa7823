// The instructions the kernels use, one function each: inline PTX on a GPU. Without a CUDA compiler the same names come
// from kernels/host, which runs a kernel on the CPU, so the sources of the kernels are the same in both.
#pragma once

#include <cstdint>

#include "dequant.h"
#include "layout.h"

#if defined(__CUDACC__)
#define AWQBENCH_DEVICE __device__ __forceinline__
#define AWQBENCH_KERNEL(threads, blocks) __global__ void __launch_bounds__(threads, blocks)
#else
#define AWQBENCH_DEVICE inline
#define AWQBENCH_KERNEL(threads, blocks) void
#endif

namespace awqbench::arch {

struct alignas(16) Word4 {
    uint32_t at[4];
};
struct alignas(16) Float4 {
    float at[4];
};

using Shared = uint32_t;  // an address in shared memory, as instructions take it

}  // namespace awqbench::arch

#if !defined(__CUDACC__)
#include "../host/simt_attend.h"
#include "../host/simt_ops.h"
#include "../host/simt_wgmma.h"
#else

namespace awqbench::arch {

AWQBENCH_DEVICE int thread() { return static_cast<int>(threadIdx.x); }
AWQBENCH_DEVICE int block() { return static_cast<int>(blockIdx.x); }
AWQBENCH_DEVICE int grid() { return static_cast<int>(gridDim.x); }
AWQBENCH_DEVICE void sync_block() { __syncthreads(); }
AWQBENCH_DEVICE void sync_warp() { __syncwarp(); }
AWQBENCH_DEVICE uint32_t shuffle(uint32_t value, int lane) { return __shfl_sync(0xffffffffu, value, lane); }
AWQBENCH_DEVICE uint32_t bits_of(float value) { return __float_as_uint(value); }
AWQBENCH_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
AWQBENCH_DEVICE uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }
// One byte of a word in both of its halves: 0x00bb00bb.
AWQBENCH_DEVICE uint32_t byte_twice(uint32_t word, int byte) {
    return __byte_perm(word, 0, 0x4040u + 0x0101u * static_cast<uint32_t>(byte));
}
// The same value in all lanes, told to the compiler: what depends on it goes to uniform registers and branches.
AWQBENCH_DEVICE int uniform(int value) { return __shfl_sync(0xffffffffu, value, 0); }

// --- Global memory ---

// Weights are read once: not kept in L1, and the first to leave L2.
AWQBENCH_DEVICE uint64_t once_policy() {
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}
AWQBENCH_DEVICE Word4 load_once(const void* from, uint64_t policy) {
    Word4 r;
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                 : "l"(from), "l"(policy));
    return r;
}
// Weights that blocks on other processors read too: kept in L2.
AWQBENCH_DEVICE Word4 load_reused(const void* from) {
    Word4 r;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                 : "l"(from));
    return r;
}
AWQBENCH_DEVICE void store_words(void* to, const Word4& v) {
    *static_cast<uint4*>(to) = make_uint4(v.at[0], v.at[1], v.at[2], v.at[3]);
}
AWQBENCH_DEVICE uint32_t load_word(const void* from) {
    uint32_t r;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(r) : "l"(from));
    return r;
}
// x may be what the kernel before has just written, so not through the read-only path.
AWQBENCH_DEVICE uint16_t load_float16(const void* from) {
    uint16_t r;
    asm volatile("ld.global.u16 %0, [%1];" : "=h"(r) : "l"(from) : "memory");
    return r;
}
// The same in 16 bytes, from L2: what is left of an earlier kernel in L1 does not matter.
AWQBENCH_DEVICE Word4 load_words(const void* from) {
    Word4 r;
    asm volatile("ld.global.cg.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                 : "l"(from)
                 : "memory");
    return r;
}
// Constants, 16 bytes.
AWQBENCH_DEVICE Float4 load_floats(const float* from) {
    Float4 r;
    asm volatile("ld.global.nc.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(r.at[0]), "=f"(r.at[1]), "=f"(r.at[2]), "=f"(r.at[3])
                 : "l"(from));
    return r;
}
AWQBENCH_DEVICE void prefetch(const void* from) { asm volatile("prefetch.global.L2 [%0];" ::"l"(from)); }
AWQBENCH_DEVICE void store_float16(void* to, uint16_t value) {
    asm volatile("st.global.u16 [%0], %1;" ::"l"(to), "h"(value) : "memory");
}
// Partial sums go between blocks, so through L2.
AWQBENCH_DEVICE Float4 load_partial(const Float4* from) {
    Float4 r;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(r.at[0]), "=f"(r.at[1]), "=f"(r.at[2]), "=f"(r.at[3])
                 : "l"(from)
                 : "memory");
    return r;
}
AWQBENCH_DEVICE void store_partial(Float4* to, Float4 v) {
    asm volatile("st.global.cg.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(v.at[0]), "f"(v.at[1]), "f"(v.at[2]),
                 "f"(v.at[3])
                 : "memory");
}
AWQBENCH_DEVICE uint32_t count_up(uint32_t* counter) { return atomicAdd(counter, 1u); }
AWQBENCH_DEVICE void store_word(uint32_t* to, uint32_t value) { *reinterpret_cast<volatile uint32_t*>(to) = value; }
AWQBENCH_DEVICE void fence() { __threadfence(); }

// Launched early (programmatic dependent launch), a kernel waits here until what came before has finished; launched
// plainly, both do nothing.
AWQBENCH_DEVICE void wait_for_previous_kernel() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
AWQBENCH_DEVICE void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// --- Shared memory ---

AWQBENCH_DEVICE Shared shared_memory() {
    extern __shared__ __align__(1024) uint4 dynamic_shared_memory[];
    return static_cast<Shared>(__cvta_generic_to_shared(dynamic_shared_memory));
}
AWQBENCH_DEVICE uint32_t load_shared(Shared from) {
    uint32_t r;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(from) : "memory");
    return r;
}
AWQBENCH_DEVICE uint32_t load_shared_byte(Shared from) {
    uint32_t r;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(r) : "r"(from) : "memory");
    return r;
}
AWQBENCH_DEVICE void store_shared(Shared to, uint32_t v) {
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(to), "r"(v) : "memory");
}
AWQBENCH_DEVICE Word4 load_shared4(Shared from) {
    Word4 r;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r.at[0]), "=r"(r.at[1]), "=r"(r.at[2]), "=r"(r.at[3])
                 : "r"(from)
                 : "memory");
    return r;
}
AWQBENCH_DEVICE void store_shared4(Shared to, Word4 v) {
    asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(v.at[0]), "r"(v.at[1]), "r"(v.at[2]),
                 "r"(v.at[3])
                 : "memory");
}
AWQBENCH_DEVICE Float4 load_shared_floats(Shared from) {
    const Word4 w = load_shared4(from);
    return {__uint_as_float(w.at[0]), __uint_as_float(w.at[1]), __uint_as_float(w.at[2]), __uint_as_float(w.at[3])};
}
AWQBENCH_DEVICE void store_shared_floats(Shared to, Float4 v) {
    store_shared4(to, {__float_as_uint(v.at[0]), __float_as_uint(v.at[1]), __float_as_uint(v.at[2]),
                       __float_as_uint(v.at[3])});
}
// 16 bytes from global memory (`fill`: zeros instead), there after copies_wait and a barrier.
AWQBENCH_DEVICE void copy16(Shared to, const void* from, bool fill) {
    const int bytes = fill ? 0 : 16;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}
// The same for a ring: what has been copied so far is a group; all but the COUNT newest groups are there.
AWQBENCH_DEVICE void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int COUNT>
AWQBENCH_DEVICE void copies_wait_but() {
    asm volatile("cp.async.wait_group %0;" ::"n"(COUNT) : "memory");
}
AWQBENCH_DEVICE void copies_wait() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Four 8x8 matrices of 16-bit elements; lane 8 i + j gives the address of row j of matrix i.
AWQBENCH_DEVICE void load_matrices(Shared row, uint32_t (&r)[4]) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// 2^x and 1 / x to about 2^-22, 0 for minus infinity and for infinity; 1 / sqrt(x).
AWQBENCH_DEVICE float power_of_two(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
AWQBENCH_DEVICE float reciprocal(float x) {
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}
AWQBENCH_DEVICE float inverse_root(float x) { return rsqrtf(x); }

// d [16, 8] += a [16, 16] b [16, 8]
template <int D>
AWQBENCH_DEVICE void multiply_add(float (&d)[4], const Pair (&a)[4], Pair b0, Pair b1) {
    if constexpr (D == kHalf)
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
            "{%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

}  // namespace awqbench::arch

#include "arch_attend.h"
#include "arch_bulk.h"
#include "arch_wgmma.h"
#endif
