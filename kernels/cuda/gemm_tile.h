// One tile of weights times x: decode, multiply on the tensor cores, scale the float32 sum of a group.
#pragma once

#include "gemm_inputs.h"

namespace awqbench {

// The C fragments of a warp: RB blocks of 16 rows x NT groups of 8 tokens. Of a lane: rows g and g + 8 (pairs 01 and
// 23), tokens 2t and 2t + 1.
template <int RB, int NT>
struct Sums {
    float at[RB][NT][4];
    AWQBENCH_DEVICE void clear() {
#pragma unroll
        for (int b = 0; b < RB; ++b)
#pragma unroll
            for (int n = 0; n < NT; ++n)
#pragma unroll
                for (int i = 0; i < 4; ++i) at[b][n][i] = 0.f;
    }
};

// offsets() of dequant.h from a zero byte that stands in both halves already: one instruction each.
template <int D>
AWQBENCH_DEVICE Offsets offsets_of_pair(Pair both) {
    if constexpr (D == kHalf)
        return {insert_bits(both, 0x000f000fu, twice(0xe400u)), insert_bits(both, 0x00f000f0u, twice(0xd400u))};
    return {insert_bits(both, 0x000f000fu, twice(0xc300u)), insert_bits(both >> 4, 0x000f000fu, twice(0xc300u))};
}

// `at`: the tile's first k in row 0 of x in shared memory. `block`: the warp's first block of 16 rows within its row
// tile. ONCE: x's fragments of the whole tile stay in registers for all RB blocks; otherwise each block reads them again.
template <int D, int RB, int NT, bool TWO, bool ONCE, class Weights>
AWQBENCH_DEVICE void add_tile(Weights& weights, int slot, bool second, int block,
                              const InputRows<NT>& rows, arch::Shared at, Sums<RB, NT>& sums) {
    uint32_t x[ONCE ? 2 : 1][NT][4];
    if constexpr (ONCE) {
#pragma unroll
        for (int half = 0; half < 2; ++half)
#pragma unroll
            for (int n = 0; n < NT; ++n) rows.load(at, n, half, x[half][n]);
    }
#pragma unroll
    for (int b = 0; b < RB; ++b) {
        const arch::Word4 codes = weights.codes(slot, b);
        float part[NT][4];
        uint32_t scales = 0;
        Offsets zero{};
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            if (TWO || half == 0) {
                scales = weights.scales(slot, TWO ? half : 0, block + b, second);
                zero = offsets_of_pair<D>(weights.zeros(slot, TWO ? half : 0, block + b, second));
#pragma unroll
                for (int n = 0; n < NT; ++n)
#pragma unroll
                    for (int i = 0; i < 4; ++i) part[n][i] = 0.f;
            }
            if constexpr (!ONCE) {
#pragma unroll
                for (int n = 0; n < NT; ++n) rows.load(at, n, half, x[0][n]);
            }
#pragma unroll
            for (int s = 0; s < 2; ++s) {
                Pair a[4];
                decode<D>(codes.at[2 * half + s], zero, a);
#pragma unroll
                for (int n = 0; n < NT; ++n) {
                    const uint32_t(&v)[4] = x[ONCE ? half : 0][n];
                    arch::multiply_add<D>(part[n], a, v[2 * s], v[2 * s + 1]);
                }
            }
            // Keeps the compiler from working on everything at once, for which a wide kernel has no registers.
            if constexpr (NT == 8) arch::sync_warp();
            if (TWO || half == 1) {
                const float low = half_to_float(static_cast<uint16_t>(scales));
                const float high = half_to_float(static_cast<uint16_t>(scales >> 16));
#pragma unroll
                for (int n = 0; n < NT; ++n) {
                    sums.at[b][n][0] += low * part[n][0];
                    sums.at[b][n][1] += low * part[n][1];
                    sums.at[b][n][2] += high * part[n][2];
                    sums.at[b][n][3] += high * part[n][3];
                }
            }
        }
        weights.release(slot, b);
    }
}

// The same for four warps together, each with its 16 rows of the row tile.
template <int D, int NT, bool TWO, class Weights>
AWQBENCH_DEVICE void add_tile_by_group(Weights& weights, int slot, bool second, int block, arch::Shared at,
                                       Sums<1, NT>& sums) {
    constexpr int kBatch = TWO ? 2 : 4;
    const arch::Word4 codes = weights.codes(slot, 0);
    const uint64_t tokens = AtomInputs<NT>::descriptor(at);
    float part[NT][4];
#pragma unroll
    for (int n = 0; n < NT; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i) part[n][i] = 0.f;
#pragma unroll
    for (int first = 0; first < kFragments; first += kBatch) {
        const uint32_t scales = weights.scales(slot, first / 2, block, second);
        const Offsets zero = offsets_of_pair<D>(weights.zeros(slot, first / 2, block, second));
        Pair a[kBatch][4];
#pragma unroll
        for (int s = 0; s < kBatch; ++s) decode<D>(codes.at[first + s], zero, a[s]);
        arch::group_fence();
#pragma unroll
        for (int s = 0; s < kBatch; ++s)
            arch::group_multiply<D, NT>(part, a[s], tokens + (first + s) * AtomInputs<NT>::kNextStep, s != 0);
        if (first + kBatch == kFragments) weights.release(slot, 0);
        arch::group_wait();
        const float low = half_to_float(static_cast<uint16_t>(scales));
        const float high = half_to_float(static_cast<uint16_t>(scales >> 16));
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            sums.at[0][n][0] += low * part[n][0];
            sums.at[0][n][1] += low * part[n][1];
            sums.at[0][n][2] += high * part[n][2];
            sums.at[0][n][3] += high * part[n][3];
        }
    }
}

}  // namespace awqbench
