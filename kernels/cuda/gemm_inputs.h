// x in shared memory, and from there the B fragments of mma.m16n8k16.
//
// A chunk of x is M rows of `chunk` k tiles, a row padded by 16 bytes so that the eight rows of an 8x8 matrix lie in
// different banks. K beyond the end is filled with
// zeros, since padded weights are (0 - zero point), not 0.
#pragma once

#include "arch.h"
#include "gemm_split.h"

namespace awqbench {

constexpr int kZeroRowBytes = 16;

AWQBENCH_HD int x_row_bytes(int chunk) { return chunk * kTileK * 2 + 16; }

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

// Rows of shared memory that a chunk takes. A kernel for 8 tokens stores those there are; wider ones store all they could
// have, zeros where there is none: addresses are then the same for all lanes but for one term.
template <int NT>
AWQBENCH_HD constexpr int x_rows(int M) {
    return NT == 1 ? M : 8 * NT;
}

// Zeros to the rows of tokens that don't exist; they stay, chunks are staged around them. `buffers` follow each other.
template <int NT>
AWQBENCH_DEVICE void clear_missing_rows(const Problem& p, arch::Shared to, int buffers, int threads) {
    const int row_pieces = x_row_bytes(p.chunk) / 16, missing = x_rows<NT>(p.M) - p.M;
    for (int buffer = 0; buffer < buffers; ++buffer) {
        const arch::Shared first = to + (buffer * x_rows<NT>(p.M) + p.M) * row_pieces * 16;
        for (int i = arch::thread(); i < missing * row_pieces; i += threads) arch::store_shared4(first + i * 16, {});
    }
}

// Where a lane reads its rows: lane 8 i + j gives row (token) j of the 8 k's i.
template <int NT>
struct InputRows {
    arch::Shared first;  // relative to a chunk; for NT == 1 and no token here: the zeros
    uint32_t mask;       // of offsets: 0 for the zeros
    int next;            // bytes from one group of 8 tokens to the next

    AWQBENCH_DEVICE InputRows(int M, int chunk, arch::Shared zeros) {
        const int lane = arch::thread() % kLanes, token = lane % 8;
        const bool there = NT > 1 || token < M;
        mask = there ? 0xffffffffu : 0u;
        first = there ? static_cast<uint32_t>(token * x_row_bytes(chunk) + lane / 8 * 16) : zeros;
        next = 8 * x_row_bytes(chunk);
    }
    // `at`: a tile's first k in row 0 of a chunk.
    AWQBENCH_DEVICE arch::Shared place(arch::Shared at) const { return first + (NT > 1 ? at : at & mask); }
    // From that place, the B fragments of two steps of 16 k: {b0, b1} of the first, {b0, b1} of the second.
    AWQBENCH_DEVICE void load(arch::Shared place, int n, int half, uint32_t (&b)[4]) const {
        // The second half of a tile of zeros is the same 16 bytes.
        arch::load_matrices(place + n * next + (NT > 1 ? half * 64u : half * 64u & mask), b);
    }
};

}  // namespace awqbench
