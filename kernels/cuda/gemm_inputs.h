// x in shared memory, and from there to the tensor cores, in chunks of k tiles.
//
// K beyond the end is filled with zeros, since padded weights are (0 - zero point), not 0. Tokens beyond M are not: a
// column of the product depends on its own token alone, and theirs are never stored.
#pragma once

#include "arch.h"
#include "gemm_split.h"

namespace awqbench {

// For mma.m16n8k16: tokens one after another, a row padded by 16 bytes so that the eight rows of an 8x8 matrix lie in
// different banks. A kernel for 8 tokens has room for those there are and reads the first one in the place of others;
// wider ones have room for all: addresses are then the same for all lanes but for one term.
template <int NT>
struct RowInputs {
    static constexpr int kAlign = 16;
    AWQBENCH_HD static int row_bytes(int chunk) { return chunk * kTileK * 2 + 16; }
    AWQBENCH_HD static constexpr int rows(int M) { return NT == 1 ? M : 8 * NT; }
    AWQBENCH_HD static int bytes(int M, int chunk) { return rows(M) * row_bytes(chunk); }
    AWQBENCH_HD static constexpr int tile_bytes() { return kTileK * 2; }  // from one k tile to the next
    AWQBENCH_HD static int place(int chunk, int token, int piece) { return token * row_bytes(chunk) + piece * 16; }
};

// For wgmma: per k tile, 8 tokens x 128 bytes after 8 tokens x 128 bytes; the 16-byte pieces of a row change places by
// the row's number, which is what the instruction calls its 128-byte swizzle.
template <int NT>
struct AtomInputs {
    static constexpr int kAlign = 1024;
    AWQBENCH_HD static constexpr int rows(int) { return 8 * NT; }
    AWQBENCH_HD static constexpr int tile_bytes() { return 8 * NT * kTileK * 2; }
    AWQBENCH_HD static int bytes(int, int chunk) { return chunk * tile_bytes(); }
    AWQBENCH_HD static int place(int, int token, int piece) {
        return piece / 8 * tile_bytes() + token * (kTileK * 2) + (piece % 8 ^ token % 8) * 16;
    }
    // wgmma's descriptor of a tile's first 16 k's: start, 1024 bytes between groups of 8 tokens, 128-byte swizzle. Adding
    // kNextStep goes to the next 16.
    static constexpr uint64_t kNextStep = kFragmentK * 2 / 16;
    AWQBENCH_DEVICE static uint64_t descriptor(arch::Shared tile) {
        constexpr uint64_t kShape = uint64_t{1} << 62 | uint64_t{1024 / 16} << 32 | uint64_t{1} << 16;
        return kShape | (tile >> 4 & 0x3fff);
    }
};

// All threads of a block: x[:, from k tile `begin`, `count` tiles] to `to`. There after copies_wait and a barrier.
template <class Inputs>
AWQBENCH_DEVICE void stage_x(const Problem& p, arch::Shared to, int begin, int count, int threads) {
    const int warps = threads / kLanes, lane = arch::thread() % kLanes, warp = arch::thread() / kLanes;
    const int pieces = count * (kTileK / 8), slabs = (pieces + kLanes - 1) / kLanes;
    const uint16_t* const x = static_cast<const uint16_t*>(p.x);
    for (int job = warp; job < p.M * slabs; job += warps) {
        const int slab = job / p.M, token = job - slab * p.M, piece = slab * kLanes + lane;
        const int k = begin * kTileK + piece * 8;
        if (piece >= pieces) continue;
        const arch::Shared at = to + static_cast<uint32_t>(Inputs::place(p.chunk, token, piece));
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
    arch::Shared first;  // relative to a tile's first k in row 0 of a chunk
    int next;            // bytes from one group of 8 tokens to the next

    AWQBENCH_DEVICE InputRows(int M, int chunk) {
        const int lane = arch::thread() % kLanes, token = NT > 1 || lane % 8 < M ? lane % 8 : 0;
        first = static_cast<uint32_t>(token * RowInputs<NT>::row_bytes(chunk) + lane / 8 * 16);
        next = 8 * RowInputs<NT>::row_bytes(chunk);
    }
    // The B fragments of two steps of 16 k: {b0, b1} of the first, {b0, b1} of the second.
    AWQBENCH_DEVICE void load(arch::Shared tile, int n, int half, uint32_t (&b)[4]) const {
        arch::load_matrices(tile + first + n * next + half * 64, b);
    }
};

}  // namespace awqbench
