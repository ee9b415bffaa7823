// x in shared memory, and from there to the tensor cores, in chunks of k tiles.
//
// K beyond the end is filled with zeros, since padded weights are (0 - zero point), not 0. Tokens beyond M are not: a
// column of the product depends on its own token alone, and theirs are never stored.
//
// A norm or a gate is computed in place: each thread turns the pieces that it has copied itself, once they are there and
// before the barrier that shows them to others. A gate's second half lies behind the first, which takes the results.
#pragma once

#include "before.h"
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

// The 16-byte pieces of `count` k tiles from `begin` on that are this thread's: f(token, place in shared memory, k).
template <class Inputs, class F>
AWQBENCH_DEVICE void own_pieces(const Problem& p, arch::Shared to, int begin, int count, int threads, const F& f) {
    const int warps = threads / kLanes, lane = arch::thread() % kLanes, warp = arch::thread() / kLanes;
    const int pieces = count * (kTileK / kPiece), slabs = (pieces + kLanes - 1) / kLanes;
    for (int job = warp; job < p.M * slabs; job += warps) {
        const int slab = job / p.M, token = job - slab * p.M, piece = slab * kLanes + lane;
        if (piece < pieces)
            f(token, to + static_cast<uint32_t>(Inputs::place(p.chunk, token, piece)), begin * kTileK + piece * kPiece);
    }
}

// All threads of a block: x[:, from k tile `begin`, `count` tiles] to `to`. There after copies_wait and a barrier. GATE:
// whether the kernel takes a gate.
template <class Inputs, bool GATE>
AWQBENCH_DEVICE void stage_x(const Problem& p, arch::Shared to, int begin, int count, int threads) {
    const uint16_t* const x = static_cast<const uint16_t*>(p.x);
    own_pieces<Inputs>(p, to, begin, count, threads, [&](int token, arch::Shared at, int k) {
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
        if (GATE && p.before >= kSilu)
            arch::copy16(at + static_cast<uint32_t>(Inputs::bytes(p.M, p.chunk)), from + p.K, beyond);
    });
}

// A norm's weight is nobody's output: on its way to L2 while the kernel in front of this one still runs.
AWQBENCH_DEVICE void prefetch_norm(const Problem& p, int threads) {
    constexpr int kLine = 128 / sizeof(float);
    for (int k = arch::thread() * kLine; k < p.K; k += threads * kLine) arch::prefetch(p.norm + k);
}

// The scale of each token for kNorm, from x in shared memory where all of it is there, else from L2.
template <int D, class Inputs>
AWQBENCH_DEVICE void scale_rows(const Problem& p, arch::Shared inputs, arch::Shared partials, arch::Shared scales,
                                int threads) {
    if (p.resident) {
        arch::copies_wait();
        arch::sync_block();
    }
    row_scales<D>(p.M, p.K, p.eps, threads, partials, scales, [&](int token, int piece) {
        return p.resident ? arch::load_shared4(inputs + static_cast<uint32_t>(Inputs::place(p.chunk, token, piece)))
                          : arch::load_words(static_cast<const uint16_t*>(p.x) + token * p.x_stride + piece * kPiece);
    });
}

// After copies_wait, with the arguments of stage_x: the norm or the gate.
template <int D, class Inputs>
AWQBENCH_DEVICE void turn_x(const Problem& p, arch::Shared to, arch::Shared scales, int begin, int count, int threads) {
    own_pieces<Inputs>(p, to, begin, count, threads, [&](int token, arch::Shared at, int k) {
        if (k >= p.K) return;
        if (p.before == kNorm) {
            arch::Word4 v = arch::load_shared4(at);
            norm_piece<D>(v, arch::float_of(arch::load_shared(scales + 4 * static_cast<uint32_t>(token))), p.norm + k);
            arch::store_shared4(at, v);
        } else {
            // Word by word: no more registers than the loop over tiles leaves, though four lanes then share a bank.
            const arch::Shared up = at + static_cast<uint32_t>(Inputs::bytes(p.M, p.chunk));
#pragma unroll 2
            for (uint32_t i = 0; i < 16; i += 4)
                arch::store_shared(at + i, gate_pair<D>(p.before, arch::load_shared(at + i), arch::load_shared(up + i)));
        }
    });
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
