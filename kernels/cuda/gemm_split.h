// How one product is cut into work: panels of rows, segments of k tiles, an even share for every block.
//
// A unit is one panel x one k tile. Units are numbered panel by panel, and block i of B takes the units from
// floor(i U / B) to floor((i + 1) U / B): so all blocks end together whatever the shape, a block has at most two panels
// that it shares with others (its first and its last), and the blocks of a panel follow each other.
#pragma once

#include <cstdint>

#include "layout.h"

namespace awqbench {

struct Problem {
    const void* x;
    const uint8_t* tiles;
    const uint8_t* steps;
    const void* bias;  // or null
    void* y;
    uint32_t* counters;  // one per block, 0 between launches
    void* partials;      // two slots per block
    int64_t x_stride;    // elements between rows of x
    int M, N, K;
    int row_tiles, k_tiles, panels;
    int groups;         // steps per row tile
    int group_tiles;    // k tiles per group; 0 where two groups share a tile
    uint32_t division;  // floor(2^32 / group_tiles) + 1: k tile to group without a division; 0 for one tile per group
    int chunk;          // k tiles of x in shared memory at a time, a multiple of the kernel's round
    bool resident;      // one chunk is all of K and stays
    bool aligned;       // rows of x start at multiples of 16 bytes
};

// Counters come first in the workspace and have a fixed size: any sequence of shapes finds them 0.
constexpr int kMaxBlocks = 4096;
constexpr int64_t kCounterBytes = kMaxBlocks * sizeof(uint32_t);

AWQBENCH_HD int64_t first_unit(int block, int blocks, int64_t units) { return units * block / blocks; }
// The block whose share holds a unit: the inverse of first_unit.
AWQBENCH_HD int block_of(int64_t unit, int blocks, int64_t units) {
    return static_cast<int>(((unit + 1) * blocks - 1) / units);
}

// A block's share, walked segment by segment: k tiles [begin, end) of one panel.
struct Segment {
    int panel, begin, end;
    int last_panel, last_end;  // where the share ends
    int k_tiles;

    AWQBENCH_HD bool valid() const { return panel <= last_panel; }
    AWQBENCH_HD bool whole() const { return begin == 0 && end == k_tiles; }
    AWQBENCH_HD void next() {
        ++panel;
        begin = 0;
        end = panel == last_panel ? last_end : k_tiles;
    }
};

AWQBENCH_HD Segment first_segment(int block, int blocks, int panels, int k_tiles) {
    const int64_t units = static_cast<int64_t>(panels) * k_tiles;
    const int64_t from = first_unit(block, blocks, units), to = first_unit(block + 1, blocks, units);
    Segment s{};
    s.k_tiles = k_tiles;
    s.panel = static_cast<int>(from / k_tiles);
    s.begin = static_cast<int>(from % k_tiles);
    s.last_panel = static_cast<int>((to - 1) / k_tiles);
    s.last_end = static_cast<int>((to - 1) % k_tiles) + 1;
    s.end = s.panel == s.last_panel ? s.last_end : k_tiles;
    return s;
}

// k tile to group.
AWQBENCH_HD int group_of_tile(int k_tile, uint32_t division) {
#if defined(__CUDA_ARCH__)
    return division == 0 ? k_tile : static_cast<int>(__umulhi(static_cast<uint32_t>(k_tile), division));
#else
    return division == 0 ? k_tile : static_cast<int>(static_cast<uint64_t>(k_tile) * division >> 32);
#endif
}

}  // namespace awqbench
