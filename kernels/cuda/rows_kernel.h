// f(x) of before.h alone, where the product had better not compute it: a block takes a row, or 256 pieces of it.
#pragma once

#include "before.h"

namespace awqbench {

struct Rows {
    const uint16_t* x;
    const float* norm;
    uint16_t* out;
    int64_t x_stride;
    int K, slices, before;
    float eps;
};

constexpr int kRowsThreads = 256;
constexpr int kRowsShared = 4 * (1 + kSquareParts);  // a scale, and the sums that make it

template <int D>
AWQBENCH_KERNEL(kRowsThreads, 4) rows_kernel(const Rows p) {
    const int row = arch::block() / p.slices, slice = arch::block() % p.slices;
    const uint16_t* const x = p.x + row * p.x_stride;
    const arch::Shared scale = arch::shared_memory();
    arch::let_next_kernel_start();
    arch::wait_for_previous_kernel();
    if (p.before == kNorm)
        row_scales<D>(1, p.K, p.eps, kRowsThreads, scale + 4, scale,
                      [&](int, int piece) { return arch::load_words(x + piece * kPiece); });
    for (int piece = slice * kRowsThreads + arch::thread(); piece < p.K / kPiece; piece += p.slices * kRowsThreads) {
        const int k = piece * kPiece;
        arch::Word4 v = arch::load_words(x + k);
        if (p.before == kNorm) {
            norm_piece<D>(v, arch::float_of(arch::load_shared(scale)), p.norm + k);
        } else {
            const arch::Word4 up = arch::load_words(x + p.K + k);
#pragma unroll
            for (int i = 0; i < 4; ++i) v.at[i] = gate_pair<D>(p.before, v.at[i], up.at[i]);
        }
        arch::store_words(p.out + static_cast<int64_t>(row) * p.K + k, v);
    }
}

}  // namespace awqbench
