// What is computed of x before a product: an RMS norm or a gate, in float32, rounded to the 16-bit type once. One source
// for the product's own staging (gemm_inputs.h) and for the kernel that does nothing else (rows.cu): the same bits.
#pragma once

#include "arch.h"

namespace awqbench {

// `before` of w4a16.h. Gates from kSilu on: x is twice as wide, f(its first half) times its second.
enum Before : int { kPlain, kNorm, kSilu, kGeluTanh, kGelu, kRelu, kBeforeCount };

constexpr int kPiece = 8;        // numbers in 16 bytes
constexpr int kSquareParts = 8;  // sums of squares of a row, which are then added up in order

// 1 / sqrt(mean(x^2) + eps) of M rows to `scales`, one float each in shared memory; `partials`: room for kSquareParts
// floats per row. `load` gives piece `piece` of a row. All threads of the block; in the end a barrier.
//
// The order of additions depends on K alone, not on the number of threads: lane l of part p adds pieces 32 p + l, and
// those 256 further on, number by number; then the lanes by a tree, then the parts.
template <int D, class Load>
AWQBENCH_DEVICE void row_scales(int M, int K, float eps, int threads, arch::Shared partials, arch::Shared scales,
                                const Load& load) {
    const int lane = arch::thread() % kLanes, warp = arch::thread() / kLanes, warps = threads / kLanes;
    for (int job = warp; job < M * kSquareParts; job += warps) {
        const int row = job / kSquareParts, part = job % kSquareParts;
        float sum = 0.f;
#pragma unroll 4
        for (int piece = part * kLanes + lane; piece < K / kPiece; piece += kSquareParts * kLanes) {
            const arch::Word4 v = load(row, piece);
#pragma unroll
            for (int i = 0; i < 4; ++i) {  // a square of 16 bits is exact: fused or not, the sum rounds once
                const float low = low_float<D>(v.at[i]), high = high_float<D>(v.at[i]);
                sum += low * low;
                sum += high * high;
            }
        }
#pragma unroll
        for (int other = 1; other < kLanes; other *= 2) sum += arch::float_of(arch::shuffle(arch::bits_of(sum), lane ^ other));
        if (lane == 0) arch::store_shared(partials + 4 * job, arch::bits_of(sum));
    }
    arch::sync_block();
    if (arch::thread() < M) {
        const arch::Shared own = partials + 4 * kSquareParts * arch::thread();
        float sum = arch::float_of(arch::load_shared(own));
#pragma unroll
        for (int part = 1; part < kSquareParts; ++part) sum += arch::float_of(arch::load_shared(own + 4 * part));
        arch::store_shared(scales + 4 * arch::thread(), arch::bits_of(arch::inverse_root(sum / static_cast<float>(K) + eps)));
    }
    arch::sync_block();
}

// `norm`: the weight from the piece's first k on.
template <int D>
AWQBENCH_DEVICE void norm_piece(arch::Word4& v, float scale, const float* norm) {
    const arch::Float4 weight[2] = {arch::load_floats(norm), arch::load_floats(norm + 4)};
#pragma unroll
    for (int i = 0; i < 4; ++i)
        v.at[i] = pair_of<D>(low_float<D>(v.at[i]) * scale * weight[i / 2].at[i % 2 * 2],
                             high_float<D>(v.at[i]) * scale * weight[i / 2].at[i % 2 * 2 + 1]);
}

// f(g) of two numbers, times u.
template <int D>
AWQBENCH_DEVICE Pair gate_pair(int before, Pair g, Pair u) {
    const auto apply = [&](const auto& f) {
        return pair_of<D>(f(low_float<D>(g)) * low_float<D>(u), f(high_float<D>(g)) * high_float<D>(u));
    };
    if (before == kRelu) return apply([](float x) { return x < 0.f ? 0.f : x; });
    if (before == kGelu)  // x (1 + erf(x / sqrt 2)) / 2 by Abramowitz and Stegun 7.1.26: erf is off by 1.5e-7 at the most
        return apply([](float x) {
            const float a = (x < 0.f ? -x : x) * 0.70710678f, t = arch::reciprocal(1.f + 0.3275911f * a);
            const float series =
                t * (0.254829592f + t * (-0.284496736f + t * (1.421413741f + t * (-1.453152027f + t * 1.061405429f))));
            const float tail = 0.5f * series * arch::power_of_two(-1.44269504f * a * a);
            return x * (x < 0.f ? tail : 1.f - tail);
        });
    // silu is x / (1 + exp(-x)); gelu with tanh is x / (1 + exp(-2 sqrt(2 / pi) (x + 0.044715 x^3))).
    const float linear = before == kSilu ? -1.44269504f : -2.30220820f, cubic = before == kSilu ? 0.f : -0.102943246f;
    return apply([&](float x) { return x * arch::reciprocal(1.f + arch::power_of_two(x * (cubic * x * x + linear))); });
}

}  // namespace awqbench
