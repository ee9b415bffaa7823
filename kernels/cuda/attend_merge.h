// Sums of warps, then of slices, in one order: the last block of a sequence, key head and pass to arrive merges its slices.
//
// As in gemm_reduce.h: no float atomics, nobody waits, counters return to 0, the same bits every time.
#pragma once

#include "attend_tile.h"

namespace awqbench {

AWQBENCH_DEVICE float load_shared_float(arch::Shared from) { return arch::float_of(arch::load_shared(from)); }

// Sums of one head and 4 numbers, divided and rounded.
template <int D>
AWQBENCH_DEVICE void store_result(const Attend& p, const Part& part, int head, int number, const arch::Float4& v, float weights) {
    const int64_t row = static_cast<int64_t>(part.sequence) * p.key_heads * p.group + part.key_head * p.group + part.head + head;
    arch::store8(p.y + row * p.size + number, pair_of<D>(v.at[0] / weights, v.at[1] / weights),
                 pair_of<D>(v.at[2] / weights, v.at[3] / weights));
}

AWQBENCH_DEVICE void add_weighted(arch::Float4& to, float weight, const arch::Float4& from) {
#pragma unroll
    for (int i = 0; i < 4; ++i) to.at[i] += weight * from.at[i];
}

// A warp's sums to its part of shared memory: `room` for rows of size + 8 numbers, `stats` for two numbers per row.
template <int STEPS>
AWQBENCH_DEVICE void lay_down(const Attend& p, const HeadSums<STEPS>& sums, arch::Shared room, arch::Shared stats) {
    const int lane = arch::thread() % kLanes;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int row = lane / 4 + 8 * h;
        float weights = sums.weights[h];
#pragma unroll
        for (int step = 1; step < 4; step *= 2) weights += arch::float_of(arch::shuffle(arch::bits_of(weights), lane ^ step));
        if (lane % 4 == 0) arch::store_shared_pair(stats + row * 8, sums.most[h], weights);
        const arch::Shared to = room + row * (p.size + 8) * 4 + lane % 4 * 8;
#pragma unroll
        for (int j = 0; j < 2 * STEPS; ++j) {
            if (j * 8 >= p.size) break;
            arch::store_shared_pair(to + j * 32, sums.values[j][2 * h], sums.values[j][2 * h + 1]);
        }
    }
}

// All threads of the block, after a barrier: from the warps' sums to the result, or to the block's slot.
template <int D>
AWQBENCH_DEVICE void merge_warps(const Attend& p, const Part& part, arch::Shared rooms, int room_bytes, arch::Shared stats,
                                 arch::Float4* slot) {
    const int quarters = p.size / 4;
    for (int i = arch::thread(); i < part.heads * quarters; i += p.warps * kLanes) {
        const int head = i / quarters, quarter = i - head * quarters;
        float most = -INFINITY;
        for (int w = 0; w < p.warps; ++w) {
            const float m = load_shared_float(stats + (w * kMostHeads + head) * 8);
            most = m > most ? m : most;
        }
        arch::Float4 v{};
        float weights = 0.f;
        for (int w = 0; w < p.warps; ++w) {
            const arch::Shared of_warp = stats + (w * kMostHeads + head) * 8;
            const float weight = arch::power_of_two(load_shared_float(of_warp) - most);
            weights += weight * load_shared_float(of_warp + 4);
            add_weighted(v, weight, arch::load_shared_floats(rooms + w * room_bytes + (head * (p.size + 8) + quarter * 4) * 4));
        }
        if (part.active == 1) {
            store_result<D>(p, part, head, quarter * 4, v, weights);
        } else {
            arch::store_partial(slot + head * head_units(p.size) + quarter, v);
            if (quarter == 0) arch::store_partial(slot + (head + 1) * head_units(p.size) - 1, {{most, weights, 0.f, 0.f}});
        }
    }
}

// All threads of the block that arrived last: `slots` of its slices follow each other. `stats`: room for weights.
template <int D>
AWQBENCH_DEVICE void merge_slices(const Attend& p, const Part& part, int warp, arch::Shared stats, const arch::Float4* slots) {
    constexpr int kAtOnce = 8;  // loads on their way
    const int lane = arch::thread() % kLanes, quarters = p.size / 4, units = head_units(p.size);
    const int64_t slot = static_cast<int64_t>(p.heads) * units;
    for (int head = warp; head < part.heads; head += p.warps) {  // a lane per slice
        float most = -INFINITY, sum = 0.f;
        if (lane < part.active) {
            const arch::Float4 of_slice = arch::load_partial(slots + lane * slot + (head + 1) * units - 1);
            most = of_slice.at[0];
            sum = of_slice.at[1];
        }
        float highest = most;
#pragma unroll
        for (int step = 1; step < kLanes; step *= 2) {
            const float other = arch::float_of(arch::shuffle(arch::bits_of(highest), lane ^ step));
            highest = other > highest ? other : highest;
        }
        const float weight = arch::power_of_two(most - highest);
        const float weights = sum_of_warp(weight * sum);
        const arch::Shared of_head = stats + head * (kMostSlices + 1) * 4;
        arch::store_shared(of_head + lane * 4, arch::bits_of(weight));
        if (lane == 0) arch::store_shared(of_head + kMostSlices * 4, arch::bits_of(weights));
    }
    arch::sync_block();
    for (int i = arch::thread(); i < part.heads * quarters; i += p.warps * kLanes) {
        const int head = i / quarters, quarter = i - head * quarters;
        const arch::Shared of_head = stats + head * (kMostSlices + 1) * 4;
        const arch::Float4* const from = slots + head * units + quarter;
        arch::Float4 v{};
        for (int first = 0; first < part.active; first += kAtOnce) {
            arch::Float4 parts[kAtOnce];
#pragma unroll
            for (int s = 0; s < kAtOnce; ++s)
                if (first + s < part.active) parts[s] = arch::load_partial(from + (first + s) * slot);
#pragma unroll
            for (int s = 0; s < kAtOnce; ++s)
                if (first + s < part.active) add_weighted(v, load_shared_float(of_head + (first + s) * 4), parts[s]);
        }
        store_result<D>(p, part, head, quarter * 4, v, load_shared_float(of_head + kMostSlices * 4));
    }
}

// Whether this block is the last of its slices to arrive, told to all its threads by `flag` in shared memory.
AWQBENCH_DEVICE bool arrived_last(const Part& part, uint32_t* counter, arch::Shared flag) {
    const uint32_t others = static_cast<uint32_t>(part.active - 1);
    arch::fence();
    arch::sync_block();
    if (arch::thread() == 0) {
        const uint32_t before = arch::count_up(counter);
        arch::store_shared(flag, before);
        if (before == others) arch::store_word(counter, 0);
    }
    arch::sync_block();
    const bool last = arch::load_shared(flag) == others;
    if (last) arch::fence();
    return last;
}

}  // namespace awqbench
