// y = f(x) W^T + bias + residual for 1 to 8 * NT tokens: the kernel, and the shapes it comes in.
//
// A block of WR x WK warps takes panels of WR * RB * 16 rows; WK warps share a panel's k tiles in turns. Weights go past
// each warp in a stream that doesn't stop at segments; x lies in shared memory, all of it or in two chunks by turns.
#pragma once

#include <type_traits>

#include "gemm_reduce.h"

namespace awqbench {

constexpr int kMostTakenIn = 8;  // tokens, for which a product computes a norm or a gate itself

template <int RB_, int WR_, int WK_, int NT_, bool TWO_, int BLOCKS_, bool ONCE_, class Weights_, bool GROUPS_ = false>
struct Shape {
    static constexpr int RB = RB_, WR = WR_, WK = WK_, NT = NT_, kBlocksPerSm = BLOCKS_;
    static constexpr bool kTwo = TWO_, kOnce = ONCE_;
    using Weights = Weights_;
    // Four warps at a time multiply a row tile by wgmma; otherwise each warp does its rows by mma.
    static constexpr bool kGroups = GROUPS_;
    using Inputs = std::conditional_t<kGroups, AtomInputs<NT>, RowInputs<NT>>;
    AWQBENCH_HD static constexpr int row_of(int warp) { return kGroups ? warp / 4 / WK * 4 + warp % 4 : warp / WK; }
    AWQBENCH_HD static constexpr int k_of(int warp) { return kGroups ? warp / 4 % WK : warp % WK; }
    // Norms and gates take registers that three blocks per SM don't leave.
    static constexpr bool kTakesIn = 8 * NT <= kMostTakenIn && kBlocksPerSm <= 2;
    static constexpr int kThreads = WR * WK * kLanes;
    static constexpr int kPanelBlocks = WR * RB;              // of 16 rows
    static constexpr int kRound = WK * Weights::kDepth;       // k tiles that a chunk is a multiple of
    static constexpr int kPanelBytes = kPanelBlocks * NT * kLanes * 16;  // of partial sums
    // Shared memory: 16 bytes for a flag, a norm's scale per token, the warps' sums, the weights' ring, then x.
    static constexpr int kScalesAt = 16, kSumsAt = kScalesAt + 4 * 8 * NT, kRingAt = kSumsAt + WK * kPanelBytes;
    static constexpr int kInputsAt = static_cast<int>(ceil_div(kRingAt + Weights::kSharedBytes, Inputs::kAlign)) * Inputs::kAlign;
};

template <int D, class S>
AWQBENCH_KERNEL(S::kThreads, S::kBlocksPerSm) gemm_kernel(const Problem p) {
    constexpr int WK = S::WK, kDepth = S::Weights::kDepth;
    using Inputs = typename S::Inputs;
    const int warp = arch::uniform(arch::thread() / kLanes), warp_row = S::row_of(warp), warp_k = S::k_of(warp);
    const arch::Shared shared = arch::shared_memory();
    Segment segment = first_segment(p, arch::block());
    // Weights are nobody's output: they set out before the kernel in front of this one has finished.
    typename S::Weights weights(p, segment, warp_row, warp_k, shared + S::kRingAt);
    if (S::kTakesIn && p.before == kNorm) prefetch_norm(p, S::kThreads);
    arch::let_next_kernel_start();
    arch::wait_for_previous_kernel();

    const InputRows<S::NT> rows(p.M, p.chunk);
    const int chunk_bytes = Inputs::bytes(p.M, p.chunk) * (S::kTakesIn && p.before >= kSilu ? 2 : 1);
    arch::Shared inputs = shared + S::kInputsAt, other = inputs + (p.resident ? 0 : chunk_bytes);
    const auto count = [&](int begin, int end) { return end - begin < p.chunk ? end - begin : p.chunk; };
    if (p.resident)
        stage_x<Inputs, S::kTakesIn>(p, inputs, 0, p.k_tiles, S::kThreads);
    else
        stage_x<Inputs, S::kTakesIn>(p, inputs, segment.begin, count(segment.begin, segment.end), S::kThreads);
    const arch::Shared scales = shared + S::kScalesAt;
    if (S::kTakesIn && p.before == kNorm) scale_rows<D, Inputs>(p, inputs, shared + S::kSumsAt, scales, S::kThreads);

    for (bool first = true; segment.valid(); segment.next(p), first = false) {
        Sums<S::RB, S::NT> sums;
        sums.clear();
        const int block = first_row_block<S::RB, S::WR>(segment.panel, warp_row) % kBlocks;
        for (int begin = segment.begin; begin < segment.end; begin += p.chunk) {
            const int end = begin + count(begin, segment.end);
            arch::copies_wait();
            if (S::kTakesIn && p.before != kPlain && (first || !p.resident))
                turn_x<D, Inputs>(p, inputs, scales, p.resident ? 0 : begin, p.resident ? p.k_tiles : end - begin,
                                  S::kThreads);
            if constexpr (S::kGroups) arch::fence_for_group();
            arch::sync_block();
            if (!p.resident) {
                Segment next = segment;
                int from = end;
                if (end == segment.end) {
                    next.next(p);
                    from = next.begin;
                }
                if (next.valid()) stage_x<Inputs, S::kTakesIn>(p, other, from, count(from, next.end), S::kThreads);
            }
            const arch::Shared x = inputs - (p.resident ? 0 : begin) * Inputs::tile_bytes();
            for (int k = begin + warp_k; k - warp_k < end; k += S::kRound) {
#pragma unroll
                for (int d = 0; d < kDepth; ++d) {
                    const int tile = k + d * WK;
                    if (tile < end) {
                        weights.await(d);
                        const bool second = 2 * tile + 1 < p.groups;
                        const arch::Shared at = x + tile * Inputs::tile_bytes();
                        if constexpr (S::kGroups)
                            add_tile_by_group<D, S::NT, S::kTwo>(weights, d, second, block, at, sums);
                        else
                            add_tile<D, S::RB, S::NT, S::kTwo, S::kOnce>(weights, d, second, block, rows, at, sums);
                        weights.release(p, d);
                    } else {
                        weights.skip(p, d);
                    }
                }
            }
            if (!p.resident) {
                const arch::Shared used = inputs;
                inputs = other;
                other = used;
            }
        }
        finish<D, S::RB, S::WR, S::WK, S::NT>(p, segment, first, warp_row, warp_k, sums, shared + S::kSumsAt, shared);
    }
}

}  // namespace awqbench
