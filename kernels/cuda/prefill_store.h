// From a warpgroup's sums to y: bias, one rounding, and rows of weights turned into columns of y through shared memory, so
// that 16 bytes per lane leave and 128 bytes lie together.
#pragma once

#include "gemm_tile.h"
#include "prefill_plan.h"

namespace awqbench {

template <int NT>
constexpr int kTurnBytes = 8 * NT * kTileRows * 2;  // shared memory for the 64 rows of a row tile

// `sums`: 64 rows x 8 NT tokens of the four warps of warpgroup `group`, tokens from `token` on. `turn`: their own.
template <int D, int NT>
AWQBENCH_DEVICE void store_rows(const Prefill& p, const float (&sums)[NT][4], int row_tile, int token, arch::Shared turn,
                                int group) {
    static_assert(NT % 2 == 0, "two groups of 8 tokens at a time");
    const int thread = arch::thread() % (4 * kLanes), warp = thread / kLanes, lane = thread % kLanes;
    const auto bias_of = [&](int row) {
        return p.bias != nullptr && row < p.N ? low_float<D>(arch::load_float16(static_cast<const uint16_t*>(p.bias) + row)) : 0.f;
    };
    const int row = row_tile * kTileRows + warp * kBlockRows + lane / 4;
    const float low = bias_of(row), high = bias_of(row + 8);
    // A row of shared memory is a token, 8 pieces of 8 weight rows; pieces change places by the token, against conflicts.
    const auto place = [&](int column, int piece) {
        return turn + static_cast<uint32_t>(column * (kTileRows * 2) + (piece ^ column % 8) * 16);
    };
    arch::sync_group(group);  // what was there has been read
#pragma unroll
    for (int n = 0; n < NT; n += 2) {
        Pair r[4];
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const float(&v)[4] = sums[n + i];
            r[2 * i] = pair_of<D>(v[0] + low, v[1] + low);
            r[2 * i + 1] = pair_of<D>(v[2] + high, v[3] + high);
        }
        arch::store_columns(place(8 * (n + lane / 16) + lane % 8, 2 * warp + lane / 8 % 2), r);
    }
    arch::sync_group(group);
    for (int i = thread; i < 8 * NT * 8; i += 4 * kLanes) {
        const int column = i / 8, first = row_tile * kTileRows + i % 8 * 8;
        if (token + column >= p.M || first >= p.N) continue;
        const arch::Word4 eight = arch::load_shared4(place(column, i % 8));
        uint16_t* const to = static_cast<uint16_t*>(p.y) + static_cast<int64_t>(token + column) * p.N + first;
        if (p.wide_rows) {  // then N ends between pieces
            arch::store_words(to, eight);
        } else {
#pragma unroll
            for (int j = 0; j < 8; ++j)
                if (first + j < p.N) arch::store_float16(to + j, static_cast<uint16_t>(eight.at[j / 2] >> 16 * (j % 2)));
        }
    }
}

}  // namespace awqbench
