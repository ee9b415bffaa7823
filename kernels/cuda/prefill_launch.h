// From a request for many tokens to launches: which tiles, how the tail is cut, the kernel and the sum after it.
#pragma once

#include "gemm_device.h"
#include "prefill_kernel.h"

namespace awqbench {

enum class Tile {
    kTall,    // 256 rows x 128 tokens: the fewest bytes through L2
    kNarrow,  // 256 rows x 96 tokens: for 65 to 96, 129 to 192 tokens and so on
    kWide,    // 128 rows x 256 tokens: decodes a weight half as often, moves 1.5 times the bytes
};
template <Tile TILE, bool TWO>
struct PrefillShapeOf;
template <bool TWO>
struct PrefillShapeOf<Tile::kTall, TWO> : PrefillShape<2, 16, 6, 3, TWO> {};
template <bool TWO>
struct PrefillShapeOf<Tile::kNarrow, TWO> : PrefillShape<2, 12, 8, 4, TWO> {};
template <bool TWO>
struct PrefillShapeOf<Tile::kWide, TWO> : PrefillShape<1, 32, 4, 2, TWO> {};

struct PrefillRequest {
    const void *x, *tiles, *steps, *bias;
    void *y, *scratch;
    int64_t scratch_bytes, M, N, K, group, x_stride;
    void* stream;
    Tile tile;
    bool cut;  // the last turn's tiles along K
};

struct PrefillPlan {
    int panels = 0, token_tiles = 0, blocks = 0, turns = 0, whole_tiles = 0, tail_tiles = 0, tail_blocks = 0, tail_parts = 0;
    int64_t scratch_bytes = 0;
    double cycles = 0;  // of the block that works longest, and of the sum: counted, not measured
};

template <class S>
PrefillPlan plan_prefill(const PrefillRequest& r, const Device& device) {
    // Counted per processor: 2048 multiply-adds and 24 bytes from L2 a cycle, 40 bytes of stores; per tile, storing and
    // the first weights of the next; per sum, a launch.
    constexpr double kProducts = 2048, kFromL2 = 24, kToL2 = 40, kPerTile = 1500, kPerSum = 4000;
    constexpr double kBytes = S::kRows * (kTileK / 2 + 2) + S::kTokens * kTileK * 2.;
    constexpr double kWork = double{S::kRows} * S::kTokens * kTileK / kProducts, kStep = kWork > kBytes / kFromL2 ? kWork : kBytes / kFromL2;
    PrefillPlan plan;
    const int k_tile_count = static_cast<int>(k_tiles(r.K)), processors = device.processors;
    plan.panels = static_cast<int>(ceil_div(r.N, S::kRows));
    plan.token_tiles = static_cast<int>(ceil_div(r.M, S::kTokens));
    const int tiles = plan.panels * plan.token_tiles;
    plan.whole_tiles = r.cut ? tiles / processors * processors : tiles;
    plan.turns = static_cast<int>(ceil_div(plan.whole_tiles, processors));
    plan.tail_tiles = tiles - plan.whole_tiles;
    plan.cycles = plan.turns * (k_tile_count * kStep + kPerTile);
    if (plan.tail_tiles > 0) {
        int parts = processors / plan.tail_tiles;
        if (parts > k_tile_count) parts = k_tile_count;
        const bool even = parts == k_tile_count || 10 * parts * plan.tail_tiles >= 9 * processors;
        const int units = plan.tail_tiles * k_tile_count;
        plan.tail_parts = even ? parts : 0;
        plan.tail_blocks = even ? parts * plan.tail_tiles : processors < units ? processors : units;
        const int slots = even ? plan.tail_blocks : plan.tail_tiles + plan.tail_blocks - 1;  // slot_of
        plan.scratch_bytes = slots * S::kSlotBytes;
        plan.cycles += ceil_div(units, plan.tail_blocks) * kStep + kPerTile + (even ? 1 : 2) * (S::kSlotBytes / kToL2) +
                       kPerSum + static_cast<double>(plan.scratch_bytes) / (kFromL2 * processors);
    }
    plan.blocks = plan.whole_tiles < processors && plan.whole_tiles > 0 ? plan.whole_tiles
                  : plan.turns > 0                                      ? processors
                                                                        : plan.tail_blocks;
    return plan;
}

template <int D, class S>
int launch_prefill(const PrefillRequest& r, const Device& device) {
    const PrefillPlan plan = plan_prefill<S>(r, device);
    if (r.scratch_bytes < plan.scratch_bytes) return kInvalidValue;
    Prefill p{};
    take_operands(p, r);
    p.partials = r.scratch;
    p.panels = plan.panels;
    p.token_tiles = plan.token_tiles;
    p.whole_tiles = plan.whole_tiles;
    p.turns = plan.turns;
    p.blocks = plan.blocks;
    p.tail_blocks = plan.tail_blocks;
    p.tail_parts = plan.tail_parts;
    if (plan.tail_blocks > 0) {
        p.share = plan.tail_tiles * p.k_tiles / plan.tail_blocks;
        p.extra = plan.tail_tiles * p.k_tiles % plan.tail_blocks;
    }
    p.wide_rows = r.N % 8 == 0 && reinterpret_cast<uintptr_t>(r.y) % 16 == 0;
    if (const int error = start(prefill_kernel<D, S>, p, plan.blocks, S::kThreads, S::kSharedBytes, false, r.stream)) return error;
    if (plan.tail_tiles == 0) return 0;
    return start(prefill_sum_kernel<D, S>, p, plan.tail_tiles * (S::NT / 2), S::kUsers, S::kGroups * kTurnBytes<2>, true, r.stream);
}

template <class F>
auto with_prefill_shape(const PrefillRequest& r, const F& f) {
    const auto with_tile = [&](auto two) {
        constexpr bool kTwo = decltype(two)::value;
        switch (r.tile) {
            case Tile::kNarrow: return f(PrefillShapeOf<Tile::kNarrow, kTwo>{});
            case Tile::kWide: return f(PrefillShapeOf<Tile::kWide, kTwo>{});
            default: return f(PrefillShapeOf<Tile::kTall, kTwo>{});
        }
    };
    return r.group == 32 ? with_tile(std::true_type{}) : with_tile(std::false_type{});
}

// One per type of x, each in a source file of its own, so that they compile side by side.
int prefill_half(const PrefillRequest& r, const Device& device);
int prefill_bfloat16(const PrefillRequest& r, const Device& device);

}  // namespace awqbench
