// From the warps' sums to y: over the warps of a block in shared memory, over the blocks of a panel in the workspace.
//
// Both sums run in a fixed order, so the same inputs give the same bits whichever block comes last. A panel's blocks
// count themselves; the last one adds up, and sets the counter back to 0 for the next launch. Nobody waits for anybody.
#pragma once

#include "gemm_tile.h"
#include "gemm_weights.h"

namespace awqbench {

AWQBENCH_DEVICE void add(arch::Float4& to, const arch::Float4& from) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to.at[i] += from.at[i];
}

// A C fragment of a panel: 16 rows, 8 tokens, and this thread's lane in it.
template <int NT>
struct Fragment {
    int row, token;  // of the first of the lane's elements
    AWQBENCH_DEVICE Fragment(int panel_first_row, int index) {
        const int lane = index % kLanes, fragment = index / kLanes;
        row = panel_first_row + fragment / NT * kBlockRows + lane / 4;
        token = fragment % NT * 8 + lane % 4 * 2;
    }
    AWQBENCH_DEVICE bool here(const Problem& p, int i) const { return row + i / 2 * 8 < p.N && token + i % 2 < p.M; }
    AWQBENCH_DEVICE int64_t place(const Problem& p, int i) const {
        return static_cast<int64_t>(token + i % 2) * p.N + row + i / 2 * 8;
    }
    // What is added to the product. Loaded before the sums, so that it comes while they do.
    template <int D>
    AWQBENCH_DEVICE arch::Float4 added(const Problem& p) const {
        arch::Float4 v{};
        if (p.residual != nullptr) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (here(p, i)) v.at[i] = low_float<D>(arch::load_float16(static_cast<const uint16_t*>(p.residual) + place(p, i)));
        }
        if (p.bias != nullptr) {
#pragma unroll
            for (int i = 0; i < 4; ++i)
                if (here(p, i))
                    v.at[i] += low_float<D>(arch::load_float16(static_cast<const uint16_t*>(p.bias) + row + i / 2 * 8));
        }
        return v;
    }
    template <int D>
    AWQBENCH_DEVICE void store(const Problem& p, arch::Float4 v, const arch::Float4& summand) const {
        if (p.bias != nullptr || p.residual != nullptr) add(v, summand);  // else -0 would become 0
#pragma unroll
        for (int i = 0; i < 4; ++i)
            if (here(p, i))
                arch::store_float16(static_cast<uint16_t*>(p.y) + place(p, i), static_cast<uint16_t>(pair_of<D>(v.at[i], 0.f)));
    }
};

// `shared`: room for the sums of all warps; `flag`: a word of shared memory. All threads of the block.
template <int D, int RB, int WR, int WK, int NT>
AWQBENCH_DEVICE void finish(const Problem& p, const Segment& segment, bool first_of_block, int warp_row, int warp_k,
                            const Sums<RB, NT>& sums, arch::Shared shared, arch::Shared flag) {
    constexpr int kThreads = WR * WK * kLanes, kWarp = RB * NT * kLanes, kPanel = WR * kWarp;
    const int lane = arch::thread() % kLanes;
#pragma unroll
    for (int b = 0; b < RB; ++b)
#pragma unroll
        for (int n = 0; n < NT; ++n) {
            const float(&v)[4] = sums.at[b][n];
            const int at = (warp_row * WK + warp_k) * kWarp + (b * NT + n) * kLanes + lane;
            arch::store_shared_floats(shared + at * 16, {{v[0], v[1], v[2], v[3]}});
        }
    arch::sync_block();

    const int panel_row = segment.panel * WR * RB * kBlockRows, from = segment.panel * p.k_tiles;
    arch::Float4* const slots = static_cast<arch::Float4*>(p.partials);
    arch::Float4* const slot = slots + (2 * static_cast<int64_t>(arch::block()) + (first_of_block ? 0 : 1)) * kPanel;
    for (int i = arch::thread(); i < kPanel; i += kThreads) {
        const Fragment<NT> fragment(panel_row, i);
        if (fragment.token >= p.M) continue;
        const arch::Shared at = shared + (i / kWarp * WK * kWarp + i % kWarp) * 16;
        arch::Float4 v = arch::load_shared_floats(at);
#pragma unroll
        for (int k = 1; k < WK; ++k) add(v, arch::load_shared_floats(at + k * kWarp * 16));
        if (segment.whole(p))
            fragment.template store<D>(p, v, fragment.template added<D>(p));
        else
            arch::store_partial(slot + i, v);
    }
    if (segment.whole(p)) return;

    const int first = block_of(p, from), last = block_of(p, from + p.k_tiles - 1);
    arch::fence();
    arch::sync_block();
    if (arch::thread() == 0) {
        const uint32_t before = arch::count_up(p.counters + first);
        arch::store_shared(flag, before);
        if (before == static_cast<uint32_t>(last - first)) arch::store_word(p.counters + first, 0);
    }
    arch::sync_block();
    if (arch::load_shared(flag) != static_cast<uint32_t>(last - first)) return;
    arch::fence();
    // Only the first of a panel's blocks can have come from another panel before: this one is its second segment.
    const int first_slot = 2 * first + (first_unit(p, first) < from ? 1 : 0);
    for (int i = arch::thread(); i < kPanel; i += kThreads) {
        const Fragment<NT> fragment(panel_row, i);
        if (fragment.token >= p.M) continue;
        const arch::Float4 summand = fragment.template added<D>(p);
        arch::Float4 v = arch::load_partial(slots + static_cast<int64_t>(first_slot) * kPanel + i);
        for (int block = first + 1; block <= last; ++block)
            add(v, arch::load_partial(slots + 2 * static_cast<int64_t>(block) * kPanel + i));
        fragment.template store<D>(p, v, summand);
    }
}

}  // namespace awqbench
