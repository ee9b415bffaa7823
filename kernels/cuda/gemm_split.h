// How one product is cut into work: panels of rows, segments of k tiles, an even share for every block.
//
// A unit is one panel x one k tile. Units are numbered panel by panel, and each block takes the same number of them in a
// row, or one more: so all blocks end together whatever the shape, a block has at most two panels that it shares with
// others (its first and its last), and the blocks of a panel follow each other.
#pragma once

#include <cstdint>

#include "layout.h"

namespace awqbench {

struct Problem {
    const void* x;
    const uint8_t* tiles;
    const uint8_t* steps;
    const void* bias;      // or null
    const void* residual;  // [M, N] or null
    const float* norm;     // [K], of kNorm
    float eps;
    int before;            // of before.h
    void* y;
    uint32_t* counters;  // one per block, 0 between launches
    void* partials;      // two slots per block
    int64_t x_stride;    // elements between rows of x
    int M, N, K;
    int row_tiles, k_tiles, panels;
    int share, extra;   // units per block; so many blocks, the first ones, take one more
    int groups;         // steps per row tile
    uint32_t division;  // floor(2^32 / k tiles per group) + 1: k tile to group by a multiplication; 0 for one tile
    int chunk;          // k tiles of x in shared memory at a time, a multiple of the kernel's round
    bool resident;      // one chunk is all of K and stays
    bool aligned;       // rows of x start at multiples of 16 bytes
};

// Counters come first in the workspace and have a fixed size: any sequence of shapes finds them 0.
constexpr int kMaxBlocks = 4096;
constexpr int64_t kCounterBytes = kMaxBlocks * sizeof(uint32_t);

AWQBENCH_HD int first_unit(const Problem& p, int block) { return block * p.share + (block < p.extra ? block : p.extra); }
// The block whose share holds a unit: the inverse of first_unit.
AWQBENCH_HD int block_of(const Problem& p, int unit) {
    const int longer = p.extra * (p.share + 1);  // units of the blocks that take one more
    return unit < longer ? unit / (p.share + 1) : p.extra + (unit - longer) / p.share;
}

// A block's share, walked segment by segment: k tiles [begin, end) of one panel, `left` more units after it.
struct Segment {
    int panel, begin, end, left;

    AWQBENCH_HD bool valid() const { return end > 0; }
    AWQBENCH_HD bool whole(const Problem& p) const { return begin == 0 && end == p.k_tiles; }
    AWQBENCH_HD void next(const Problem& p) {
        ++panel;
        begin = 0;
        end = left < p.k_tiles ? left : p.k_tiles;
        left -= end;
    }
};

AWQBENCH_HD Segment first_segment(const Problem& p, int block) {
    const int from = first_unit(p, block), share = first_unit(p, block + 1) - from;
    Segment s{};
    s.panel = from / p.k_tiles;
    s.begin = from % p.k_tiles;
    s.end = share < p.k_tiles - s.begin ? s.begin + share : p.k_tiles;
    s.left = share - (s.end - s.begin);
    return s;
}

// What group_of_tile takes for k tile to group. One group per row may end within a tile; all others of 64 and more end
// with one.
AWQBENCH_HD uint32_t division_of(int64_t group) {
    const int64_t group_tiles = k_tiles(group);
    return group_tiles < 2 ? 0 : static_cast<uint32_t>((int64_t{1} << 32) / group_tiles + 1);
}
AWQBENCH_HD int group_of_tile(int k_tile, uint32_t division) {
#if defined(__CUDA_ARCH__)
    return division == 0 ? k_tile : static_cast<int>(__umulhi(static_cast<uint32_t>(k_tile), division));
#else
    return division == 0 ? k_tile : static_cast<int>(static_cast<uint64_t>(k_tile) * division >> 32);
#endif
}

// The part of a problem that every kernel takes from a request as it stands.
template <class Request>
void take_operands(Problem& p, const Request& r) {
    p.x = r.x;
    p.tiles = static_cast<const uint8_t*>(r.tiles);
    p.steps = static_cast<const uint8_t*>(r.steps);
    p.bias = r.bias;
    p.y = r.y;
    p.x_stride = r.x_stride;
    p.M = static_cast<int>(r.M);
    p.N = static_cast<int>(r.N);
    p.K = static_cast<int>(r.K);
    p.row_tiles = static_cast<int>(row_tiles(r.N));
    p.k_tiles = static_cast<int>(k_tiles(r.K));
    p.groups = static_cast<int>(r.K / r.group);
    p.division = division_of(r.group);
}

}  // namespace awqbench
