// arch_wgmma.h on the CPU. A batch is computed when it is waited for; until then its sums are NaN.
#pragma once

#include "simt.h"

namespace awqbench::arch {

constexpr int kGroupLanes = 4 * kLanes;

struct GroupMultiply {
    int dtype, groups;
    bool keep;
    uint64_t tokens;
    float* d[kGroupLanes];
    std::vector<float> before;  // d of all lanes when the instruction was issued
    Pair a[kGroupLanes][4];
};
struct Group {
    int arrived = 0, generation = 0;
    GroupMultiply next;
    std::vector<GroupMultiply> pending;
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
    std::memcpy(next.a[lane], a, sizeof a);
    std::memcpy(&next.before[static_cast<std::size_t>(lane * NT * 4)], d, sizeof d);
    std::memset(d, 0xff, sizeof d);
    with_group(group, [&] { group.pending.push_back(std::move(next)); });
}

inline void run_group_multiply(const GroupMultiply& m, bool first) {
    // The descriptor: start address, stride between 8 tokens (both in 16 bytes), swizzle mode 1: 128 bytes.
    const uint32_t start = static_cast<uint32_t>(m.tokens & 0x3fff) << 4;
    const uint32_t stride = static_cast<uint32_t>(m.tokens >> 32 & 0x3fff) << 4;
    if (m.tokens >> 62 != 1) simt::fail("a descriptor without the 128-byte swizzle");
    const float* const table = float_table(m.dtype);
    std::vector<float> B(static_cast<std::size_t>(m.groups * 8 * 16));
    for (int token = 0; token < m.groups * 8; ++token)
        for (int k = 0; k < 16; ++k) {
            uint32_t at = start + static_cast<uint32_t>(token / 8) * stride + static_cast<uint32_t>(token % 8 * 128 + k * 2);
            at ^= (at >> 7 & 7) << 4;
            uint16_t bits;
            std::memcpy(&bits, simt::shared_at(at, 2, false, simt::warp_index()), 2);
            B[static_cast<std::size_t>(token * 16 + k)] = table[bits];
        }
    std::vector<float> A(64 * 16);
    for (int lane = 0; lane < kGroupLanes; ++lane)
        for (int i = 0; i < 8; ++i) {
            const int g = lane % kLanes / 4, t = lane % 4, row = lane / kLanes * 16 + g + (i / 2 % 2 ? 8 : 0);
            A[static_cast<std::size_t>(row * 16 + 2 * t + i % 2 + (i >= 4 ? 8 : 0))] =
                table[static_cast<uint16_t>(m.a[lane][i / 2] >> 16 * (i % 2))];
        }
    for (int lane = 0; lane < kGroupLanes; ++lane)
        for (int n = 0; n < m.groups; ++n)
            for (int i = 0; i < 4; ++i) {
                const int row = lane / kLanes * 16 + lane % kLanes / 4 + i / 2 * 8, token = 8 * n + lane % 4 * 2 + i % 2;
                const std::size_t at = static_cast<std::size_t>(n * 4 + i);
                double sum = !m.keep ? 0 : first ? m.before[static_cast<std::size_t>(lane * m.groups * 4) + at] : m.d[lane][at];
                for (int k = 0; k < 16; ++k)
                    sum += static_cast<double>(A[static_cast<std::size_t>(row * 16 + k)]) * B[static_cast<std::size_t>(token * 16 + k)];
                m.d[lane][at] = static_cast<float>(sum);
            }
}
inline void group_fence() {}
inline void group_wait() {
    Group& group = group_of_thread();
    with_group(group, [&] {
        for (std::size_t i = 0; i < group.pending.size(); ++i) run_group_multiply(group.pending[i], i == 0);
        group.pending.clear();
    });
}
inline void fence_for_group() {}

}  // namespace awqbench::arch
