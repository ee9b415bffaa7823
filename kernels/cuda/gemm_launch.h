// From a request to a launch: how many blocks, how much of x at a time, the launch itself.
#pragma once

#include "gemm_shapes.h"
#include "gemm_device.h"

namespace awqbench {

struct Request {
    const void *x, *tiles, *steps, *bias, *residual;
    const float* norm;
    void *y, *workspace;
    int64_t workspace_bytes, M, N, K, group, x_stride;
    void* stream;
    Kind kind;
    bool whole_panels;  // a block takes one whole panel: no sum over blocks
    bool overlap;       // may start before the kernel in front of it has finished
    int before;         // of before.h
    float eps;
};

constexpr int kGateChunk = 32;  // k tiles

struct Plan {
    int blocks = 0, chunk = 0;
    bool resident = false;
    int shared_bytes = 0;
    int64_t workspace_bytes = 0;
    int64_t traffic = 0;  // bytes of x and of partial sums that cross from L2 to the SMs and back, about
    bool fits = false;
};

template <class S>
Plan plan_for(const Request& r, const Device& device) {
    Plan plan;
    const int k_tile_count = static_cast<int>(k_tiles(r.K)), M = static_cast<int>(r.M);
    const int64_t panels = ceil_div(row_tiles(r.N) * kBlocks, S::kPanelBlocks), units = panels * k_tile_count;
    constexpr int kReserved = 1024;  // of every block, by the system
    int room = device.shared_per_sm / S::kBlocksPerSm - kReserved;
    if (room > device.shared_per_block) room = device.shared_per_block;
    room -= S::kInputsAt;

    int64_t blocks = r.whole_panels ? panels : static_cast<int64_t>(device.processors) * S::kBlocksPerSm;
    if (!r.whole_panels && blocks > ceil_div(units, S::WK)) blocks = ceil_div(units, S::WK);  // a tile for each warp
    if (!r.whole_panels && blocks > kMaxBlocks) blocks = kMaxBlocks;
    const int64_t share = ceil_div(units, blocks);
    plan.blocks = static_cast<int>(blocks);

    const bool gate = r.before >= kSilu;
    const int halves = gate ? 2 : 1;
    const auto bytes = [&](int chunk) { return halves * S::Inputs::bytes(M, chunk); };
    plan.resident = share >= k_tile_count && bytes(k_tile_count) <= room;
    if (plan.resident) {
        plan.chunk = k_tile_count;
    } else {
        const int longest = static_cast<int>(share < k_tile_count ? share : k_tile_count);
        int rounds = static_cast<int>(ceil_div(longest, S::kRound));
        // A gate takes its time: short chunks, so that all but the first are computed while weights come.
        if (gate && rounds > ceil_div(kGateChunk, S::kRound)) rounds = static_cast<int>(ceil_div(kGateChunk, S::kRound));
        while (rounds > 0 && 2 * bytes(rounds * S::kRound) > room) --rounds;
        plan.chunk = rounds * S::kRound;
    }
    plan.fits = plan.chunk > 0;
    plan.shared_bytes = S::kInputsAt + (plan.resident ? 1 : 2) * bytes(plan.chunk);
    const int64_t x_bytes = int64_t{2} * halves * M * r.K, parts = r.whole_panels ? 0 : blocks + (panels < blocks ? panels : blocks);
    plan.traffic = x_bytes * (plan.resident ? blocks : panels) + 2 * parts * S::kPanelBytes;
    plan.workspace_bytes = kCounterBytes + (r.whole_panels ? 0 : 2 * blocks * S::kPanelBytes);
    return plan;
}

template <int D, class S>
int launch(const Request& r, const Device& device) {
    const Plan plan = plan_for<S>(r, device);
    if (!plan.fits || r.workspace_bytes < plan.workspace_bytes) return kInvalidValue;
    Problem p{};
    take_operands(p, r);
    p.residual = r.residual;
    p.norm = r.norm;
    p.eps = r.eps;
    p.before = r.before;
    p.counters = static_cast<uint32_t*>(r.workspace);
    p.partials = static_cast<uint8_t*>(r.workspace) + kCounterBytes;
    p.panels = static_cast<int>(ceil_div(static_cast<int64_t>(p.row_tiles) * kBlocks, S::kPanelBlocks));
    p.share = p.panels * p.k_tiles / plan.blocks;
    p.extra = p.panels * p.k_tiles % plan.blocks;
    p.chunk = plan.chunk;
    p.resident = plan.resident;
    p.aligned = reinterpret_cast<uintptr_t>(r.x) % 16 == 0 && r.x_stride % 8 == 0;
    return start(gemm_kernel<D, S>, p, plan.blocks, S::kThreads, plan.shared_bytes, r.overlap, r.stream);
}

// What is asked of the kernel that a request names: its plan, or its launch.
template <class F, Kind KIND, int NT>
auto with_groups(const Request& r, const F& f) {
    // With K = 32 and one group per row, that group is also one of 32: either kernel would do.
    return r.group == 32 ? f(ShapeOf<KIND, NT, true>{}) : f(ShapeOf<KIND, NT, false>{});
}
template <class F, Kind KIND>
auto with_tokens(const Request& r, const F& f) {
    constexpr int kLeast = token_groups(KIND, 1), kMost = token_groups(KIND, 64);
    const int groups = token_groups(KIND, static_cast<int>(r.M));
    if constexpr (kLeast <= 1)
        if (groups == 1) return with_groups<F, KIND, 1>(r, f);
    if constexpr (kLeast <= 2 && kMost >= 2)
        if (groups == 2) return with_groups<F, KIND, 2>(r, f);
    if constexpr (kLeast <= 4 && kMost >= 4)
        if (groups == 4) return with_groups<F, KIND, 4>(r, f);
    return with_groups<F, KIND, kMost>(r, f);
}
template <class F>
auto with_shape(const Request& r, const F& f) {
    switch (r.kind) {
        case Kind::kTall: return with_tokens<F, Kind::kTall>(r, f);
        case Kind::kRows: return with_tokens<F, Kind::kRows>(r, f);
        case Kind::kBulk: return with_tokens<F, Kind::kBulk>(r, f);
        case Kind::kGroup: return with_tokens<F, Kind::kGroup>(r, f);
        case Kind::kTallGroup: return with_tokens<F, Kind::kTallGroup>(r, f);
        default: return with_tokens<F, Kind::kStream>(r, f);
    }
}

// One per type of x, each in a source file of its own, so that they compile side by side.
int launch_half(const Request& r, const Device& device);
int launch_bfloat16(const Request& r, const Device& device);

}  // namespace awqbench
