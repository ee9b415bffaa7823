// kernels/cuda/arch_attend.h on the CPU.
#pragma once

#include "simt_ops.h"

namespace awqbench::arch {

inline int64_t load_count(const int64_t* from) { return load_global<int64_t>(from); }
inline float load_float(const float* from) { return load_global<float>(from); }
inline void store8(void* to, uint32_t low, uint32_t high) { store_global(to, low | static_cast<uint64_t>(high) << 32); }

inline void store_shared_float16(Shared to, uint16_t value) { std::memcpy(own_shared(to, 2, true), &value, 2); }
inline void store_shared_pair(Shared to, float low, float high) {
    char* const at = own_shared(to, 8, true);
    std::memcpy(at, &low, 4);
    std::memcpy(at + 4, &high, 4);
}

inline void load_matrices_turned(Shared row, uint32_t (&r)[4]) {
    simt::Warp& w = warp_of_thread();
    const int me = thread() % kLanes;
    w.in[me][0] = row;
    simt::with_warp("ldmatrix.trans", [](simt::Warp& warp) {
        for (int matrix = 0; matrix < 4; ++matrix)
            for (int j = 0; j < 8; ++j) {
                const char* const from = own_shared(static_cast<Shared>(warp.in[8 * matrix + j][0]), 16, false);
                for (int column = 0; column < 8; ++column) {  // element [j][column] goes to lane (column, j / 2)
                    uint16_t value;
                    std::memcpy(&value, from + 2 * column, 2);
                    uint64_t& to = warp.out[4 * column + j / 2][matrix];
                    to = j % 2 ? (to & 0xffffu) | static_cast<uint64_t>(value) << 16 : value;
                }
            }
    });
    for (int i = 0; i < 4; ++i) r[i] = static_cast<uint32_t>(w.out[me][i]);
}

}  // namespace awqbench::arch
