// The instructions of kernels/cuda/arch.h on the CPU. Fragment layouts are those that the PTX manual gives for ldmatrix,
// mma.m16n8k16 and mbarrier. A product's 16 terms are added in double and rounded to float32 once.
#pragma once

#include "simt.h"

namespace awqbench::arch {

inline int thread() { return simt::machine().current; }
inline int block() { return simt::machine().block; }
inline int grid() { return simt::machine().launch.grid; }
inline void sync_block() { simt::sync_block(); }
inline void sync_warp() {
    simt::with_warp("syncwarp", [](simt::Warp&) {});
}
inline simt::Warp& warp_of_thread() { return simt::machine().warps[simt::warp_index()]; }
inline uint32_t shuffle(uint32_t value, int lane) {
    simt::Warp& w = warp_of_thread();
    const int me = thread() % kLanes;
    w.in[me][0] = value;
    w.in[me][1] = static_cast<uint64_t>(lane % kLanes);
    simt::with_warp("shfl", [](simt::Warp& warp) {
        for (int i = 0; i < kLanes; ++i) warp.out[i][0] = warp.in[warp.in[i][1]][0];
    });
    return static_cast<uint32_t>(w.out[me][0]);
}
inline uint32_t byte_twice(uint32_t word, int byte) { return (word >> 8 * byte & 0xffu) * 0x00010001u; }
inline int uniform(int value) {
    const uint32_t first = shuffle(static_cast<uint32_t>(value), 0);
    if (first != static_cast<uint32_t>(value)) simt::fail("uniform() of different values");
    return value;
}
inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}
inline float float_of(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
inline uint32_t multiply_high(uint32_t a, uint32_t b) { return static_cast<uint32_t>(static_cast<uint64_t>(a) * b >> 32); }

// --- Global memory ---

template <class T>
T load_global(const void* from) {
    simt::check_global(from, sizeof(T), false);
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class T>
void store_global(void* to, const T& value) {
    simt::check_global(to, sizeof(T), true);
    std::memcpy(to, &value, sizeof value);
}
inline uint64_t once_policy() { return 0; }
inline Word4 load_once(const void* from, uint64_t) { return load_global<Word4>(from); }
inline Word4 load_reused(const void* from) { return load_global<Word4>(from); }
inline void store_words(void* to, const Word4& value) { store_global(to, value); }
inline uint32_t load_word(const void* from) { return load_global<uint32_t>(from); }
inline uint16_t load_float16(const void* from) { return load_global<uint16_t>(from); }
inline Word4 load_words(const void* from) { return load_global<Word4>(from); }
inline Float4 load_floats(const float* from) { return load_global<Float4>(from); }
inline void prefetch(const void* from) { simt::check_global(from, 1, false); }
inline void store_float16(void* to, uint16_t value) { store_global(to, value); }
inline Float4 load_partial(const Float4* from) { return load_global<Float4>(from); }
inline void store_partial(Float4* to, Float4 value) {
    simt::check_global(to, sizeof value, true);
    simt::Store store{reinterpret_cast<char*>(to), {}};
    std::memcpy(store.value, &value, sizeof value);
    simt::machine().lanes[thread()]->stores.push_back(store);
}
inline uint32_t count_up(uint32_t* counter) {
    const uint32_t before = load_global<uint32_t>(counter);
    store_global(counter, before + 1);
    return before;
}
inline void store_word(uint32_t* to, uint32_t value) { store_global(to, value); }
inline void fence() {
    std::vector<simt::Store>& stores = simt::machine().lanes[thread()]->stores;
    for (const simt::Store& store : stores) std::memcpy(store.to, store.value, sizeof store.value);
    stores.clear();
}
inline void wait_for_previous_kernel() { simt::wait_for_previous_launch(); }
inline void let_next_kernel_start() {}

// --- Shared memory ---

inline Shared shared_memory() { return simt::kSharedBase; }
inline char* own_shared(Shared at, int bytes, bool write) { return simt::shared_at(at, bytes, write, simt::warp_index()); }
template <class T>
T load_shared_as(Shared from) {
    T value;
    std::memcpy(&value, own_shared(from, sizeof(T), false), sizeof value);
    return value;
}
inline uint32_t load_shared(Shared from) { return load_shared_as<uint32_t>(from); }
inline uint32_t load_shared_byte(Shared from) { return load_shared_as<uint8_t>(from); }
inline Word4 load_shared4(Shared from) { return load_shared_as<Word4>(from); }
inline Float4 load_shared_floats(Shared from) { return load_shared_as<Float4>(from); }
inline void store_shared(Shared to, uint32_t value) { std::memcpy(own_shared(to, 4, true), &value, 4); }
inline void store_shared4(Shared to, Word4 value) { std::memcpy(own_shared(to, 16, true), &value, 16); }
inline void store_shared_floats(Shared to, Float4 value) { std::memcpy(own_shared(to, 16, true), &value, 16); }

inline float inverse_root(float x) { return 1 / std::sqrt(x); }
inline float reciprocal(float x) { return 1 / x; }
inline float power_of_two(float x) { return std::exp2(x); }

inline void copy16(Shared to, const void* from, bool fill) {
    if (!fill) simt::check_global(from, 16, false);
    std::memset(own_shared(to, 16, true), 0xff, 16);
    simt::Lane& lane = *simt::machine().lanes[thread()];
    lane.copies.push_back({to, static_cast<const char*>(from), 16, fill ? 16 : 0, lane.groups});
}
inline void copies_commit() { ++simt::machine().lanes[thread()]->groups; }
inline void finish_copies(int group) {  // all before this group
    std::vector<simt::Copy>& copies = simt::machine().lanes[thread()]->copies;
    std::size_t done = 0;
    for (; done < copies.size() && copies[done].group < group; ++done) {
        const simt::Copy& c = copies[done];
        char* const to = own_shared(c.to, c.bytes, true);
        if (c.filled)
            std::memset(to, 0, 16);
        else
            std::memcpy(to, c.from, 16);
    }
    copies.erase(copies.begin(), copies.begin() + static_cast<std::ptrdiff_t>(done));
}
template <int COUNT>
void copies_wait_but() {
    finish_copies(simt::machine().lanes[thread()]->groups - COUNT);
}
inline void copies_wait() { finish_copies(simt::machine().lanes[thread()]->groups + 1); }

inline void load_matrices(Shared row, uint32_t (&r)[4]) {
    simt::Warp& w = warp_of_thread();
    const int me = thread() % kLanes;
    w.in[me][0] = row;
    simt::with_warp("ldmatrix", [](simt::Warp& warp) {
        for (int matrix = 0; matrix < 4; ++matrix)
            for (int j = 0; j < 8; ++j) {
                const char* const from = own_shared(static_cast<Shared>(warp.in[8 * matrix + j][0]), 16, false);
                for (int t = 0; t < 4; ++t) {
                    uint32_t value;
                    std::memcpy(&value, from + 4 * t, 4);
                    warp.out[4 * j + t][matrix] = value;
                }
            }
    });
    for (int i = 0; i < 4; ++i) r[i] = static_cast<uint32_t>(w.out[me][i]);
}

// 65536 floats per type: conversions are what the product spends its time on.
inline const float* float_table(int dtype) {
    static std::vector<float> table[2];
    if (table[dtype].empty())
        for (uint32_t bits = 0; bits < 65536; ++bits) table[dtype].push_back(host::to_float(dtype, static_cast<uint16_t>(bits)));
    return table[dtype].data();
}

template <int D>
void multiply_add(float (&d)[4], const Pair (&a)[4], Pair b0, Pair b1) {
    simt::Warp& w = warp_of_thread();
    const int me = thread() % kLanes;
    for (int i = 0; i < 2; ++i) w.in[me][i] = a[2 * i] | static_cast<uint64_t>(a[2 * i + 1]) << 32;
    w.in[me][2] = b0 | static_cast<uint64_t>(b1) << 32;
    std::memcpy(&w.in[me][4], d, 16);
    simt::with_warp(D == kHalf ? "mma half" : "mma bfloat16", [](simt::Warp& warp) {
        const float* const table = float_table(D);
        float A[16][16], B[8][16];
        for (int lane = 0; lane < kLanes; ++lane) {
            const int g = lane / 4, t = lane % 4;
            for (int i = 0; i < 8; ++i) {  // a0 .. a7
                const uint16_t bits = static_cast<uint16_t>(warp.in[lane][i / 4] >> 16 * (i % 4));
                A[g + (i / 2 % 2 ? 8 : 0)][2 * t + i % 2 + (i >= 4 ? 8 : 0)] = table[bits];
            }
            for (int i = 0; i < 4; ++i)  // b0 .. b3
                B[g][2 * t + i % 2 + (i >= 2 ? 8 : 0)] = table[static_cast<uint16_t>(warp.in[lane][2] >> 16 * i)];
        }
        for (int lane = 0; lane < kLanes; ++lane) {
            const int g = lane / 4, t = lane % 4;
            float c[4];
            std::memcpy(c, &warp.in[lane][4], 16);
            for (int i = 0; i < 4; ++i) {
                const float *const row = A[g + (i >= 2 ? 8 : 0)], *const column = B[2 * t + i % 2];
                double sum = c[i];
                for (int k = 0; k < 16; ++k) sum += static_cast<double>(row[k]) * column[k];
                c[i] = static_cast<float>(sum);
            }
            std::memcpy(warp.out[lane], c, 16);
        }
    });
    std::memcpy(d, w.out[me], 16);
}

// --- Bulk copies ---

struct BarrierWord {  // 8 bytes of shared memory
    uint8_t expected, pending;
    uint8_t phase, magic;
    int32_t bytes;  // still to come in this phase
};
inline BarrierWord* barrier_at(Shared barrier) {
    auto* const b = reinterpret_cast<BarrierWord*>(simt::shared_at(barrier, 8, true, -1));
    if (b->magic != 0x5a) simt::fail("a barrier that was never initialized", barrier);
    return b;
}
inline void settle(BarrierWord* b, Shared barrier) {
    if (b->pending != 0 || b->bytes != 0) return;
    b->phase ^= 1;
    b->pending = b->expected;
    simt::Handed& handed = simt::machine().barriers[barrier];
    handed.done = handed.arriving;
    handed.arriving = simt::Clock{};
    simt::machine().progress = true;
}
inline void barrier_init(Shared barrier, int arrivals) {
    const BarrierWord word{static_cast<uint8_t>(arrivals), static_cast<uint8_t>(arrivals), 0, 0x5a, 0};
    std::memcpy(simt::shared_at(barrier, 8, true, -1), &word, 8);
}
inline void barrier_fence() {}
inline void barrier_expect(Shared barrier, int bytes) {
    BarrierWord* const b = barrier_at(barrier);
    if (b->pending == 0) simt::fail("more arrivals at a barrier than it expects", barrier);
    b->bytes += bytes;
    --b->pending;
    simt::hand_to(simt::machine().barriers[barrier].arriving);
    settle(b, barrier);
}
inline void barrier_arrive(Shared barrier) { barrier_expect(barrier, 0); }
inline void bulk_copy(Shared to, const void* from, int bytes, Shared barrier, uint64_t) {
    if (bytes % 16 != 0 || to % 16 != 0) simt::fail("a bulk copy that is not in units of 16 bytes", to, bytes);
    for (int i = 0; i < bytes; i += 16) simt::check_global(static_cast<const char*>(from) + i, 16, false);
    std::memset(simt::shared_at(to, bytes, true, -1), 0xff, static_cast<std::size_t>(bytes));
    auto& m = simt::machine();
    m.bulk.push_back({to, barrier, static_cast<const char*>(from), bytes, static_cast<int>(m.random() % 3)});
}
// Copies land after a few waits, of whoever waits, in any order.
inline void barrier_wait(Shared barrier, uint32_t parity) {
    auto& m = simt::machine();
    const auto passed = [&] {
        if (barrier_at(barrier)->phase == parity) return false;
        m.warps[simt::warp_index()].clock.join(m.barriers[barrier].done);
        return true;
    };
    for (;;) {
        if (passed()) return;
        for (std::size_t i = 0; i < m.bulk.size();) {
            simt::BulkCopy& c = m.bulk[i];
            if (--c.delay >= 0) {
                ++i;
                continue;
            }
            std::memcpy(simt::shared_at(c.to, c.bytes, true, -1), c.from, static_cast<std::size_t>(c.bytes));
            BarrierWord* const b = barrier_at(c.barrier);
            b->bytes -= c.bytes;
            settle(b, c.barrier);
            m.bulk.erase(m.bulk.begin() + static_cast<std::ptrdiff_t>(i));
        }
        m.progress = m.progress || !m.bulk.empty();
        if (passed()) return;
        simt::pause(simt::State::kReady);
    }
}

}  // namespace awqbench::arch
