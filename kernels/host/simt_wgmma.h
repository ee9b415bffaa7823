// arch_wgmma.h on the CPU. A batch is computed when it is waited for; until then its sums are NaN, and its fragments must
// stay as they were.
#pragma once

#include "simt.h"

namespace awqbench::arch {

constexpr int kGroupLanes = 4 * kLanes;

struct GroupMultiply {
    int dtype, groups;
    bool keep;
    uint64_t tokens;
    float* d[kGroupLanes];
    std::vector<float> before;  // d of all lanes when it begins
    const Pair* a[kGroupLanes];
    Pair held[kGroupLanes][4];  // a when the instruction was issued
};
struct Group {
    int arrived = 0, generation = 0;
    GroupMultiply next;
    std::vector<std::vector<GroupMultiply>> batches{1};  // on their way, the oldest first; the last one is still open
};
inline Group& group_of_thread() {
    static Group groups[8];
    return groups[thread() / kGroupLanes];
}
// The last of the four warps' lanes acts; the others wait for it.
template <class Act>
void with_group(Group& group, const Act& act) {
    if (++group.arrived == kGroupLanes) {
        act();
        group.arrived = 0;
        ++group.generation;
        simt::machine().progress = true;
        return;
    }
    for (const int mine = group.generation; group.generation == mine;) simt::pause(simt::State::kReady);
}

template <int D, int NT>
void group_multiply(float (&d)[NT][4], const Pair (&a)[4], uint64_t tokens, bool keep) {
    Group& group = group_of_thread();
    const int lane = thread() % kGroupLanes;
    GroupMultiply& next = group.next;
    if (group.arrived == 0) {
        next = GroupMultiply{};
        next.dtype = D;
        next.groups = NT;
        next.keep = keep;
        next.tokens = tokens;
        next.before.resize(kGroupLanes * NT * 4);
    }
    if (next.tokens != tokens || next.keep != keep) simt::fail("lanes of a warpgroup ask for different products");
    next.d[lane] = &d[0][0];
    next.a[lane] = a;
    std::memcpy(next.held[lane], a, sizeof a);
    std::memcpy(&next.before[static_cast<std::size_t>(lane * NT * 4)], d, sizeof d);
    std::memset(d, 0xff, sizeof d);
    with_group(group, [&] { group.batches.back().push_back(std::move(next)); });
}

// Of the four warps that read it, in 16 bytes.
inline const char* group_shared(Shared at) {
    auto& m = simt::machine();
    const int first = simt::warp_index() / 4 * 4;
    const char* found = nullptr;
    for (int warp = first; warp < first + 4; ++warp) found = simt::shared_at(at, 16, false, warp);
    for (uint32_t w = (at - simt::kSharedBase) / 4, i = 0; i < 4; ++i) {
        const simt::WordLog& log = m.log[w + i];
        if (log.warp >= 0 && m.lanes[log.thread]->fenced < log.number) simt::fail("read by the tensor cores without a fence", at);
    }
    return found;
}

// Where a product's sums go: to the next one on its way that adds to them, or to the registers.
inline float* results_of(Group& group, const GroupMultiply& m, int lane) {
    bool after = false;
    for (auto& batch : group.batches)
        for (GroupMultiply& other : batch) {
            if (after && other.d[lane] == m.d[lane]) return &other.before[static_cast<std::size_t>(lane * m.groups * 4)];
            after = after || &other == &m;
        }
    return m.d[lane];
}

inline void run_group_multiply(Group& group, const GroupMultiply& m) {
    // The descriptor: start address, stride between 8 tokens (both in 16 bytes), swizzle mode 1: 128 bytes.
    const uint32_t start = static_cast<uint32_t>(m.tokens & 0x3fff) << 4;
    const uint32_t stride = static_cast<uint32_t>(m.tokens >> 32 & 0x3fff) << 4;
    if (m.tokens >> 62 != 1) simt::fail("a descriptor without the 128-byte swizzle");
    const float* const table = float_table(m.dtype);
    const int tokens = m.groups * 8;
    std::vector<double> B(static_cast<std::size_t>(16 * tokens)), sums(static_cast<std::size_t>(tokens));
    for (int token = 0; token < tokens; ++token)
        for (int piece = 0; piece < 2; ++piece) {
            uint32_t at = start + static_cast<uint32_t>(token / 8) * stride + static_cast<uint32_t>(token % 8 * 128 + piece * 16);
            at ^= (at >> 7 & 7) << 4;
            uint16_t bits[8];
            std::memcpy(bits, group_shared(at), 16);
            for (int k = 0; k < 8; ++k) B[static_cast<std::size_t>((8 * piece + k) * tokens + token)] = table[bits[k]];
        }
    std::vector<double> A(64 * 16);
    for (int lane = 0; lane < kGroupLanes; ++lane) {
        if (std::memcmp(m.a[lane], m.held[lane], sizeof m.held[lane]) != 0) simt::fail("the fragments of a product on its way were changed");
        for (int i = 0; i < 8; ++i) {
            const int g = lane % kLanes / 4, t = lane % 4, row = lane / kLanes * 16 + g + (i / 2 % 2 ? 8 : 0);
            A[static_cast<std::size_t>(row * 16 + 2 * t + i % 2 + (i >= 4 ? 8 : 0))] =
                table[static_cast<uint16_t>(m.held[lane][i / 2] >> 16 * (i % 2))];
        }
    }
    float* results[kGroupLanes];
    for (int lane = 0; lane < kGroupLanes; ++lane) results[lane] = results_of(group, m, lane);
    for (int row = 0; row < 64; ++row) {
        const auto place = [&](int token) {  // lane, and the index of its element
            return std::pair<int, int>(row / 16 * kLanes + row % 8 * 4 + token % 8 / 2, token / 8 * 4 + row % 16 / 8 * 2 + token % 2);
        };
        for (int token = 0; token < tokens; ++token) {
            const auto [lane, at] = place(token);
            sums[static_cast<std::size_t>(token)] = m.keep ? m.before[static_cast<std::size_t>(lane * m.groups * 4 + at)] : 0;
        }
        for (int k = 0; k < 16; ++k)
            for (int token = 0; token < tokens; ++token)
                sums[static_cast<std::size_t>(token)] += A[static_cast<std::size_t>(row * 16 + k)] * B[static_cast<std::size_t>(k * tokens + token)];
        for (int token = 0; token < tokens; ++token) {
            const auto [lane, at] = place(token);
            results[lane][at] = static_cast<float>(sums[static_cast<std::size_t>(token)]);
        }
    }
}
inline void group_fence() {}
inline void group_commit() {
    Group& group = group_of_thread();
    with_group(group, [&] { group.batches.emplace_back(); });
}
template <int COUNT>
void group_wait_but() {
    Group& group = group_of_thread();
    with_group(group, [&] {
        while (group.batches.size() > COUNT + 1) {
            for (const GroupMultiply& m : group.batches.front()) run_group_multiply(group, m);
            group.batches.erase(group.batches.begin());
        }
    });
}
inline void group_wait() {
    group_commit();
    group_wait_but<0>();
}
inline void fence_for_group() {
    auto& m = simt::machine();
    m.lanes[m.current]->fenced = m.writes;
}
template <int COUNT>
void keep_registers() {}
template <int COUNT>
void take_registers() {}
inline void sync_group(int number) {
    if (number != thread() / kGroupLanes) simt::fail("a warpgroup at another's barrier", number);
    with_group(group_of_thread(), [] { simt::meet(simt::warp_index() / 4 * 4, 4); });
}
inline void store_columns(Shared column, const uint32_t (&r)[4]) {
    simt::Warp& w = warp_of_thread();
    const int me = thread() % kLanes;
    w.in[me][0] = column;
    for (int i = 0; i < 4; ++i) w.in[me][1 + i] = r[i];
    simt::with_warp("stmatrix", [](simt::Warp& warp) {
        for (int matrix = 0; matrix < 4; ++matrix)
            for (int j = 0; j < 8; ++j) {
                uint16_t values[8];
                for (int g = 0; g < 8; ++g) values[g] = static_cast<uint16_t>(warp.in[4 * g + j / 2][1 + matrix] >> 16 * (j % 2));
                std::memcpy(own_shared(static_cast<Shared>(warp.in[8 * matrix + j][0]), 16, true), values, 16);
            }
    });
}

}  // namespace awqbench::arch
