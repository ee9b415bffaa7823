// How a product for many tokens is cut into work: tiles of rows x tokens, whole ones first, then a tail cut along K.
//
// Blocks stay on their processors and take whole tiles in turns. Where the last turn would leave many idle, its tiles are
// the tail, which is shared out along K, and a second kernel adds up. Where that leaves few idle, each tile is cut into
// equal parts, one for a block; else the k tiles of all of them, numbered tile by tile, into equal shares (gemm_split.h).
#pragma once

#include "gemm_split.h"

namespace awqbench {

// Of Problem: `panels` counts panels of all rows; share and extra are k tiles of the tail; `partials` holds its sums.
struct Prefill : Problem {
    int token_tiles;
    int whole_tiles;  // so many tiles come before the tail
    int turns;        // for whole tiles
    int blocks;       // of the grid; `tail_blocks` of them, the first ones, share the tail
    int tail_blocks, tail_parts;  // parts of each tile, or 0 for shares
    bool wide_rows;  // rows of y start at multiples of 16 bytes
};

// What one block does at a time: k tiles [begin, end) of a tile; `slot` is where its sums go, or negative for y itself.
struct PrefillPart {
    int panel, token_tile, begin, end, slot;
};

// Neighbours in time are neighbours in the matrix, so that what they read stays in L2: up to 8 token tiles (8 MB of x at
// K = 4096) by as many panels as there are blocks left.
constexpr int kBand = 8;

AWQBENCH_HD void place_tile(const Prefill& p, int tile, PrefillPart& part) {
    const int band = tile / (kBand * p.panels), within = tile - band * kBand * p.panels, first = band * kBand;
    const int width = p.token_tiles - first < kBand ? p.token_tiles - first : kBand;
    part.panel = within / width;
    part.token_tile = first + within % width;
}

// The blocks that share a tile of the tail, and where the sums of each lie.
AWQBENCH_HD int first_block(const Prefill& p, int tail_tile) {
    return p.tail_parts > 0 ? tail_tile * p.tail_parts : block_of(p, tail_tile * p.k_tiles);
}
AWQBENCH_HD int last_block(const Prefill& p, int tail_tile) {
    return p.tail_parts > 0 ? (tail_tile + 1) * p.tail_parts - 1 : block_of(p, (tail_tile + 1) * p.k_tiles - 1);
}
AWQBENCH_HD int slot_of(const Prefill& p, int tail_tile, int block) {
    // From one part to the next either the tile or the block goes on, so that no two have the same sum of both.
    return p.tail_parts > 0 ? block : tail_tile + block;
}
AWQBENCH_HD Segment tail_segment(const Prefill& p, int block) {
    if (p.tail_parts == 0) return first_segment(p, block);
    const int part = block % p.tail_parts;
    return {block / p.tail_parts, part * p.k_tiles / p.tail_parts, (part + 1) * p.k_tiles / p.tail_parts, 0};
}

// The parts of one block, in order.
class PrefillWalk {
public:
    AWQBENCH_HD PrefillWalk(const Prefill& p, int block) : block_(block), turn_(0), tail_{} {
        if (block < p.tail_blocks) tail_ = tail_segment(p, block);
    }
    AWQBENCH_HD bool next(const Prefill& p, PrefillPart& part) {
        int tile = turn_ * p.blocks + block_;
        if (turn_ < p.turns && tile < p.whole_tiles) {
            ++turn_;
            part.begin = 0;
            part.end = p.k_tiles;
            part.slot = -1;
        } else if (tail_.valid()) {
            tile = p.whole_tiles + tail_.panel;
            part.begin = tail_.begin;
            part.end = tail_.end;
            part.slot = slot_of(p, tail_.panel, block_);
            tail_.next(p);
        } else {
            return false;
        }
        place_tile(p, tile, part);
        return true;
    }

private:
    int block_, turn_;
    Segment tail_;
};

}  // namespace awqbench
