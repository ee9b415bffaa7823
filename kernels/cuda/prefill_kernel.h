// y = x W^T + bias for many tokens, on Hopper: packed weights to the tensor cores' registers, x in shared memory.
//
// Two warpgroups multiply, one fills the ring of x (prefill_ring.h). A weight is decoded once for all tokens of a tile, and
// its scale is applied to it, rounded once: the sums take the registers that sums per group would need, and the product is
// what a dense product of the dequantized matrix would be. Each multiplying warpgroup always has a batch of products with
// the tensor cores while it decodes the fragments of the next.
#pragma once

#include "gemm_weights.h"
#include "prefill_ring.h"
#include "prefill_store.h"

namespace awqbench {

// SUBS row tiles of 64 rows per warpgroup, 8 NT tokens; a ring of STAGES, AHEAD of them on their way at a time. TWO: groups
// of 32, two in a k tile.
template <int SUBS, int NT_, int STAGES, int AHEAD, bool TWO>
struct PrefillShape {
    static constexpr int kSubs = SUBS, NT = NT_, kAhead = AHEAD;
    static constexpr bool kTwo = TWO;
    static constexpr int kGroups = 2, kUsers = kGroups * 4 * kLanes, kFillers = 4 * kLanes, kThreads = kUsers + kFillers;
    static constexpr int kRowTiles = kGroups * SUBS, kRows = kRowTiles * kTileRows, kTokens = 8 * NT;
    static constexpr int64_t kSlotBytes = int64_t{4} * kRows * kTokens;
    // Registers per thread once the warpgroups have their parts: 65536 in all.
    static constexpr int kUserRegisters = 232, kFillerRegisters = 40;
    using X = Ring<NT, STAGES, kFillers / kLanes, kUsers / kLanes>;
    // Shared memory: barriers, the ring, where the warpgroups turn their results.
    static constexpr int kRingAt = 1024, kTurnAt = kRingAt + X::kBytes, kSharedBytes = kTurnAt + kGroups * kTurnBytes<NT>;
    static_assert(X::kBarrierBytes <= kRingAt && AHEAD + 2 <= STAGES, "a stage is handed back one k tile after its use");
};

// A lane's weights of the next k tile: codes, and the scales and zero points of its groups.
template <int SUBS, bool TWO>
struct NextWeights {
    static constexpr int kGroups = TWO ? 2 : 1;
    arch::Word4 codes[SUBS];
    uint32_t scales[SUBS][kGroups], zeros[SUBS][kGroups];
    const uint8_t *tiles[SUBS], *scales_at[SUBS], *zeros_at[SUBS];

    AWQBENCH_DEVICE void enter(const Prefill& p, const PrefillPart& part, int first_row_tile, int warp) {
        const int lane = arch::thread() % kLanes, g = lane / 4;
#pragma unroll
        for (int s = 0; s < SUBS; ++s) {
            int row_tile = first_row_tile + s;  // a panel may be taller than what is left: the last rows again
            if (row_tile >= p.row_tiles) row_tile = p.row_tiles - 1;
            tiles[s] = p.tiles + (static_cast<int64_t>(row_tile) * p.k_tiles + part.begin) * kTileBytes + (warp * kLanes + lane) * 16;
            const uint8_t* const steps = p.steps + static_cast<int64_t>(row_tile) * p.groups * kStepBytes;
            scales_at[s] = steps + (warp * 8 + g) * 4;
            zeros_at[s] = steps + kScaleBytes + warp * 8 + g / 4 * 4;
            fetch(p, s, part.begin);
        }
    }
    AWQBENCH_DEVICE void fetch(const Prefill& p, int s, int k_tile) {
        int group[kGroups];
        groups_of<TWO>(p, k_tile, group);
        codes[s] = arch::load_reused(tiles[s]);
        tiles[s] += kTileBytes;
#pragma unroll
        for (int i = 0; i < kGroups; ++i) {
            const uint32_t step = static_cast<uint32_t>(group[i]) * kStepBytes;
            scales[s][i] = arch::load_word(scales_at[s] + step);
            zeros[s][i] = arch::load_word(zeros_at[s] + step);
        }
    }
};

// STEPS steps of 16 k from step FIRST on: their A fragments, of row tile `s` of the warpgroup's.
template <int D, int FIRST, int STEPS, int SUBS, bool TWO>
AWQBENCH_DEVICE void decode_steps(const NextWeights<SUBS, TWO>& w, int s, Pair (&a)[STEPS][4]) {
    constexpr int kBatch = TWO ? 2 : STEPS;  // of one group
#pragma unroll
    for (int first = 0; first < STEPS; first += kBatch) {
        const int group = TWO ? (FIRST + first) / 2 : 0;
        const Offsets zero = offsets_of_pair<D>(arch::byte_twice(w.zeros[s][group], arch::thread() % kLanes / 4 % 4));
        const Factor<D> low = factor<D>(low_twice(w.scales[s][group])), high = factor<D>(high_twice(w.scales[s][group]));
#pragma unroll
        for (int step = first; step < first + kBatch; ++step) {
            decode<D>(w.codes[s].at[FIRST + step], zero, a[step]);
#pragma unroll
            for (int i = 0; i < 4; ++i) a[step][i] = scaled<D>(a[step][i], i % 2 ? high : low);
        }
    }
}

// The multiplying warpgroups.
template <int D, class S>
AWQBENCH_DEVICE void multiply(const Prefill& p, typename S::X ring, arch::Shared turn, int group) {
    constexpr int SUBS = S::kSubs, NT = S::NT, kSteps = 2 * SUBS;  // two batches of products per k tile
    const int thread = arch::thread(), warp = arch::uniform(thread / kLanes) % 4;
    float sums[SUBS][NT][4];
    Pair a[2][kSteps][4];
    NextWeights<SUBS, S::kTwo> next;
    PrefillWalk walk(p, arch::block());
    PrefillPart part{};
    const auto row_tile = [&] { return part.panel * S::kRowTiles + group * SUBS; };
    bool more = walk.next(p, part);
    if (more) next.enter(p, part, row_tile(), warp);
    while (more) {
        for (int k_tile = part.begin; k_tile < part.end; ++k_tile) {
            ring.wait_full();
            const uint64_t x = AtomInputs<NT>::descriptor(ring.at(ring.stage));
            const auto batch = [&](auto which) {
                constexpr int b = decltype(which)::value, s = SUBS == 1 ? 0 : b, first = SUBS == 1 ? kSteps * b : 0;
                decode_steps<D, first>(next, s, a[b]);
                if ((SUBS > 1 || b == 1) && k_tile + 1 < part.end) next.fetch(p, s, k_tile + 1);
                arch::group_fence();
#pragma unroll
                for (int i = 0; i < kSteps; ++i)
                    arch::group_multiply<D, NT>(sums[s], a[b][i], x + (first + i) * AtomInputs<NT>::kNextStep,
                                                k_tile != part.begin || first + i != 0);
                arch::group_commit();
                arch::group_wait_but<1>();  // the batch before this one is done, and its fragments are free
            };
            batch(std::integral_constant<int, 0>{});
            if (k_tile != part.begin) ring.arrive(ring.empty(S::X::before(ring.stage, 1)));
            batch(std::integral_constant<int, 1>{});
            ring.advance();
        }
        arch::group_wait_but<0>();
        ring.arrive(ring.empty(S::X::before(ring.stage, 1)));

        const PrefillPart done = part;
        const int first = row_tile();
        more = walk.next(p, part);
        if (more) next.enter(p, part, row_tile(), warp);  // on their way while these sums are stored
#pragma unroll
        for (int s = 0; s < SUBS; ++s) {
            if (done.slot < 0) {
                store_rows<D, NT>(p, sums[s], first + s, done.token_tile * S::kTokens, turn, group);
            } else {
                arch::Float4* const slot = static_cast<arch::Float4*>(p.partials) + done.slot * (S::kSlotBytes / 16);
#pragma unroll
                for (int n = 0; n < NT; ++n)
                    arch::store_partial(slot + (s * NT + n) * S::kUsers + thread,
                                        {{sums[s][n][0], sums[s][n][1], sums[s][n][2], sums[s][n][3]}});
            }
        }
    }
}

template <int D, class S>
AWQBENCH_KERNEL(S::kThreads, 1) prefill_kernel(const Prefill p) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)  // never launched on another chip
    const arch::Shared shared = arch::shared_memory();
    const typename S::X ring(shared + S::kRingAt, shared);
    if (arch::thread() == 0) ring.init();
    arch::sync_block();
    const int group = arch::uniform(arch::thread() / (4 * kLanes));
    if (group == S::kGroups) {
        arch::keep_registers<S::kFillerRegisters>();
        fill<S::NT, S::kAhead>(p, ring, arch::thread() - S::kUsers);
    } else {
        arch::take_registers<S::kUserRegisters>();
        multiply<D, S>(p, ring, shared + S::kTurnAt + group * kTurnBytes<S::NT>, group);
    }
#endif
}

// The tail: a block adds up two groups of 8 tokens of a tile, over its parts in the order of k.
template <int D, class S>
AWQBENCH_KERNEL(S::kUsers, 1) prefill_sum_kernel(const Prefill p) {
#if !defined(__CUDA_ARCH__) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
    arch::wait_for_previous_kernel();
    constexpr int kPairs = S::NT / 2;
    const int tile = arch::block() / kPairs, pair = arch::block() % kPairs, thread = arch::thread();
    const int group = arch::uniform(thread / (4 * kLanes));
    const int first = first_block(p, tile), last = last_block(p, tile);
    PrefillPart part;
    place_tile(p, p.whole_tiles + tile, part);
    const int token = part.token_tile * S::kTokens + pair * 16;
    if (token >= p.M) return;
#pragma unroll
    for (int s = 0; s < S::kSubs; ++s) {
        float sums[2][4] = {};
        for (int block = first; block <= last; ++block) {
            const arch::Float4* const slot = static_cast<const arch::Float4*>(p.partials) + slot_of(p, tile, block) * (S::kSlotBytes / 16);
#pragma unroll
            for (int n = 0; n < 2; ++n) {
                const arch::Float4 v = arch::load_partial(slot + (s * S::NT + 2 * pair + n) * S::kUsers + thread);
#pragma unroll
                for (int i = 0; i < 4; ++i) sums[n][i] += v.at[i];
            }
        }
        const int row_tile = part.panel * S::kRowTiles + group * S::kSubs + s;
        store_rows<D, 2>(p, sums, row_tile, token, arch::shared_memory() + group * kTurnBytes<2>, group);
    }
#endif
}

}  // namespace awqbench
