// The kernels that exist: which warps, rows, tokens and prefetch each variant uses. Register counts: kernels/NOTES.md.
#pragma once

#include "gemm_kernel.h"

namespace awqbench {

enum class Kind {
    kStream,  // weights to registers, panels of 64 rows
    kTall,    // weights to registers, panels of 256 rows: x is read from L2 a quarter as often
    kRows,    // weights to registers, panels of 16 rows: no sum over blocks even where N is small
    kBulk,    // weights by bulk copies to a ring per warp, panels of 64 rows
    kGroup,      // weights to registers, products by wgmma, panels of 64 rows
    kTallGroup,  // the same with panels of 192 or 256 rows
};

template <int RB, int WR, int WK, int DEPTH, bool TWO>
using Registers = RegisterWeights<RB, WR, WK, DEPTH, TWO>;
template <int RB, int WR, int WK, int SLOTS, bool TWO>
using Bulk = BulkWeights<RB, WR, WK, SLOTS, TWO>;

// Blocks of 16 rows per warp, warps along rows, warps along k, groups of 8 tokens, blocks per SM, and what is ahead.
template <Kind KIND, int NT, bool TWO>
struct ShapeOf;
template <bool TWO>
struct ShapeOf<Kind::kStream, 1, TWO>
    : Shape<4, 1, 8, 1, TWO, 2, true, Registers<4, 1, 8, TWO ? 1 : 2, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kStream, 2, TWO>
    : Shape<2, 2, 4, 2, TWO, TWO ? 1 : 2, true, Registers<2, 2, 4, TWO ? 4 : 3, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kStream, 4, TWO>
    : Shape<2, 2, 4, 4, TWO, 1, false, Registers<2, 2, 4, TWO ? 2 : 4, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kStream, 8, TWO>
    : Shape<TWO ? 1 : 2, TWO ? 4 : 2, TWO ? 2 : 4, 8, TWO, 1, false, Registers<TWO ? 1 : 2, TWO ? 4 : 2, TWO ? 2 : 4, 2, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kTall, 2, TWO>
    : Shape<2, 8, 1, 2, TWO, 2, true, Registers<2, 8, 1, TWO ? 2 : 3, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kTall, 4, TWO>
    : Shape<2, 8, 1, 4, TWO, 1, false, Registers<2, 8, 1, TWO ? 2 : 4, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kTall, 8, TWO>
    : Shape<TWO ? 1 : 2, 8, 1, 8, TWO, 1, false, Registers<TWO ? 1 : 2, 8, 1, 2, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kRows, 1, TWO>
    : Shape<1, 1, 8, 1, TWO, 3, true, Registers<1, 1, 8, 2, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kBulk, 1, TWO>
    : Shape<TWO ? 2 : 4, TWO ? 2 : 1, TWO ? 4 : 8, 1, TWO, 2, true, Bulk<TWO ? 2 : 4, TWO ? 2 : 1, TWO ? 4 : 8, TWO ? 5 : 3, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kBulk, 2, TWO>
    : Shape<2, 2, 4, 2, TWO, 2, true, Bulk<2, 2, 4, 5, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kBulk, 4, TWO>
    : Shape<2, 2, 4, 4, TWO, 1, false, Bulk<2, 2, 4, 6, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kBulk, 8, TWO>
    : Shape<TWO ? 1 : 2, TWO ? 4 : 2, TWO ? 2 : 4, 8, TWO, 1, false, Bulk<TWO ? 1 : 2, TWO ? 4 : 2, TWO ? 2 : 4, 6, TWO>> {};
template <bool TWO>
struct ShapeOf<Kind::kGroup, 1, TWO>
    : Shape<1, 4, 4, 1, TWO, 1, true, Registers<1, 4, 4, 4, TWO>, true> {};
template <bool TWO>
struct ShapeOf<Kind::kGroup, 2, TWO>
    : Shape<1, 4, 4, 2, TWO, 1, true, Registers<1, 4, 4, 4, TWO>, true> {};
template <bool TWO>
struct ShapeOf<Kind::kGroup, 4, TWO>
    : Shape<1, 4, 4, 4, TWO, 1, true, Registers<1, 4, 4, 4, TWO>, true> {};
template <bool TWO>
struct ShapeOf<Kind::kGroup, 8, TWO>
    : Shape<1, 4, 3, 8, TWO, 1, true, Registers<1, 4, 3, 3, TWO>, true> {};
template <bool TWO>
struct ShapeOf<Kind::kTallGroup, 2, TWO>
    : Shape<1, 16, 1, 2, TWO, 1, true, Registers<1, 16, 1, 4, TWO>, true> {};
template <bool TWO>
struct ShapeOf<Kind::kTallGroup, 4, TWO>
    : Shape<1, 16, 1, 4, TWO, 1, true, Registers<1, 16, 1, 4, TWO>, true> {};
template <bool TWO>
struct ShapeOf<Kind::kTallGroup, 8, TWO>
    : Shape<1, 12, 1, 8, TWO, 1, true, Registers<1, 12, 1, TWO ? 4 : 6, TWO>, true> {};

// The narrowest kernel of a kind that takes M tokens, or its widest: more tokens go in several launches.
constexpr int token_groups(Kind kind, int M) {
    if (kind == Kind::kRows) return 1;
    if (kind == Kind::kTall || kind == Kind::kTallGroup) return M <= 16 ? 2 : M <= 32 ? 4 : 8;
    return M <= 8 ? 1 : M <= 16 ? 2 : M <= 32 ? 4 : 8;
}

}  // namespace awqbench
