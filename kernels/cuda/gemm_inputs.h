// x in shared memory, and from there the B fragments of mma.m16n8k16.
//
// A chunk of x is M rows of `chunk` k tiles, a row padded by 16 bytes so that the eight rows of an 8x8 matrix lie in
// different banks. Tokens beyond M aren't stored: their lanes read 16 bytes of zeros. K beyond the end is filled with
// zeros, since padded weights are (0 - zero point), not 0.
#pragma once

#include "arch.h"
#include "gemm_split.h"

namespace awqbench {

constexpr int kZeroRowBytes = 16;

AWQBENCH_HD int x_row_bytes(int chunk) { return chunk * kTileK * 2 + 16; }
AWQBENCH_HD int x_chunk_bytes(int M, int chunk) { return M * x_row_bytes(chunk); }

// All threads of a block: x[:, from k tile `begin`, `count` tiles] to `to`. There after copies_wait and a barrier.
AWQBENCH_DEVICE void stage_x(const Problem& p, arch::Shared to, int begin, int count, int threads) {
    const int row_bytes = x_row_bytes(p.chunk), warps = threads / kLanes;
    const int lane = arch::thread() % kLanes, warp = arch::thread() / kLanes;
    const int pieces = count * (kTileK / 8), slabs = static_cast<int>(ceil_div(pieces, kLanes));
    const uint16_t* const x = static_cast<const uint16_t*>(p.x);
    for (int job = warp; job < p.M * slabs; job += warps) {
        const int slab = job / p.M, token = job - slab * p.M, piece = slab * kLanes + lane;
        const int k = begin * kTileK + piece * 8;
        if (piece >= pieces) continue;
        const arch::Shared at = to + token * row_bytes + piece * 16;
        const bool beyond = k >= p.K;
        const uint16_t* const from = x + token * p.x_stride + (beyond ? 0 : k);
        if (p.aligned) {
            arch::copy16(at, from, beyond);
        } else {
            arch::Word4 v{};
            if (!beyond) {
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    v.at[i] = arch::load_float16(from + 2 * i) |
                              static_cast<uint32_t>(arch::load_float16(from + 2 * i + 1)) << 16;
            }
            arch::store_shared4(at, v);
        }
    }
}

// Where a lane reads its rows: lane 8 i + j gives row (token) j of the 8 k's i.
template <int NT>
struct InputRows {
    arch::Shared first[NT];
    uint32_t mask[NT];  // of the offset along k: 0 for the row of zeros

    AWQBENCH_DEVICE InputRows(int M, int chunk, arch::Shared zeros) {
        const int lane = arch::thread() % kLanes;
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            const int token = 8 * n + lane % 8;
            mask[n] = token < M ? 0xffffffffu : 0u;
            first[n] = token < M ? static_cast<uint32_t>(token * x_row_bytes(chunk) + lane / 8 * 16) : zeros;
        }
    }
    // The B fragments of two steps of 16 k: {b0, b1} of the first, {b0, b1} of the second.
    AWQBENCH_DEVICE void load(int n, uint32_t offset, uint32_t (&b)[4]) const {
        arch::load_matrices(first[n] + (offset & mask[n]), b);
    }
};

}  // namespace awqbench
