// The attention of one step for every sequence and key head: y, and the new token in the cache.
#pragma once

#include "attend_merge.h"

namespace awqbench {

constexpr int kAttendWarps = 4;  // at the most: as many as shared memory has rings for

// Heads of up to 16 * STEPS numbers.
template <int D, int STEPS>
struct AttendShape {
    static constexpr int kDepth = STEPS > 8 ? 2 : 3;  // tiles on their way, per warp
    static constexpr int kBlocksPerSm = STEPS > 8 ? 1 : 2;
};

template <int D, int STEPS>
AWQBENCH_KERNEL(kAttendWarps* kLanes, (AttendShape<D, STEPS>::kBlocksPerSm)) attend_kernel(const Attend p) {
    constexpr int kDepth = AttendShape<D, STEPS>::kDepth;
    const int warp = arch::uniform(arch::thread() / kLanes);
    const int ring_bytes = kDepth * attend_tile_bytes(p.size);
    const arch::Shared shared = arch::shared_memory(), queries = shared + kQueriesAt, stats = shared + kStatsAt;
    const arch::Shared rings = shared + attend_rings_at(p.size), ring = rings + warp * ring_bytes;
    Part part(p, arch::block());
    TileStream<D, STEPS, kDepth> tiles(p, ring);
    arch::let_next_kernel_start();
    // All that this kernel reads may be what an earlier one has written, the length included: kernels/NOTES.md.
    arch::wait_for_previous_kernel();
    const int64_t padding = p.padding == nullptr ? 0 : arch::load_count(p.padding + part.sequence);
    if (!part.divide(p, arch::load_count(p.length), padding)) return;

    tiles.begin(p, part, warp);
    prepare_heads<D, STEPS / 2>(p, part, warp, shared);
    arch::sync_block();

    HeadSums<STEPS> sums;
    sums.clear();
    tiles.take(p, part, warp, queries, sums);
    lay_down(p, sums, ring, stats + warp * kMostHeads * 8);
    arch::sync_block();

    const int64_t slot = static_cast<int64_t>(p.heads) * head_units(p.size);
    arch::Float4* const mine = static_cast<arch::Float4*>(p.partials) + arch::block() * slot;
    merge_warps<D>(p, part, rings, ring_bytes, stats, mine);
    if (part.active == 1 || !arrived_last(part, p.counters + arch::block() / p.slices, shared)) return;
    merge_slices<D>(p, part, warp, stats, mine - part.slice * slot);
}

}  // namespace awqbench
