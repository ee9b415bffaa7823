// How the attention of one step is cut into work: sequences and key heads, passes over their query heads, slices of the
// places that are seen.
//
// A launch is captured once and replayed at every length, so its blocks are fixed, and the places seen are divided among
// them on the device, evenly, in tiles of 16: at any length all slices that have work have the same number of tiles, but
// for the last. Blocks without work end at once.
#pragma once

#include <cstdint>

#include "layout.h"

namespace awqbench {

struct Attend {
    const uint16_t* qkv;  // [batch, (heads + 2 key_heads) * size]
    const float *cosines, *sines;
    uint16_t *keys, *values;  // [batch, key_heads, capacity, size]
    const int64_t* length;
    const int64_t* padding;  // or null
    const float *query_norm, *key_norm;  // or null
    uint16_t* y;         // [batch, heads * size]
    uint32_t* counters;  // one per sequence, key head and pass, 0 between launches
    void* partials;      // one slot per block
    float eps, scale, cap;  // cap 0: none
    int key_heads, group, size, capacity, rotary, window;  // group: query heads of a key head
    int passes, heads;   // query heads of a pass, but for the last
    int slices, warps;
};

constexpr int kTilePlaces = 16;
constexpr int kMostHeads = 16;   // of a pass: the rows of a matrix product
constexpr int kMostSlices = 32;  // a lane each when they are merged
constexpr int kLeastTiles = 2;   // of a slice: fewer cost more to merge than they save

// The part of a block: query heads [head, head + heads) of one key head, and of the places [first, end) that one sequence
// sees, in tiles, tiles [tile, tile_end). `last`: the new token, which stands at place end - 1, is among them.
struct Part {
    int sequence, key_head, pass, head, heads, slice;
    int first = 0, end = 0, position = 0;
    int active = 0, tile = 0, tile_end = 0;  // active: slices that have work
    bool last = false;

    // What the launch knows.
    AWQBENCH_HD Part(const Attend& p, int block) {
        const int row = block / p.slices, pair = row / p.passes;
        slice = block - row * p.slices;
        pass = row - pair * p.passes;
        sequence = pair / p.key_heads;
        key_head = pair - sequence * p.key_heads;
        head = pass * p.heads;
        heads = p.group - head < p.heads ? p.group - head : p.heads;
    }
    // `length` and `padding` as they are on the device now. False for a block without work, and for a full cache.
    AWQBENCH_HD bool divide(const Attend& p, int64_t length, int64_t padding) {
        if (length < 0 || length >= p.capacity) return false;
        padding = padding < 0 ? 0 : padding > length ? length : padding;  // the new token always sees itself
        end = static_cast<int>(length) + 1;
        position = static_cast<int>(length - padding);
        first = static_cast<int>(padding);
        if (p.window > 0 && end - p.window > first) first = end - p.window;
        const int tiles = (end - first + kTilePlaces - 1) / kTilePlaces;
        int share = (tiles + p.slices - 1) / p.slices;
        if (share < kLeastTiles) share = kLeastTiles;
        active = (tiles + share - 1) / share;
        tile = slice * share;
        tile_end = tiles - tile < share ? tiles : tile + share;
        last = slice == active - 1;
        return slice < active;
    }
};

// Numbers of a head as the matrix products take them, 16 at a time; and bytes between rows of them in shared memory, so
// that eight rows of a 8x8 matrix lie in different banks.
AWQBENCH_HD constexpr int padded_size(int size) { return (size + 15) / 16 * 16; }
AWQBENCH_HD constexpr int attend_pitch(int size) { return padded_size(size) * 2 + 16; }
AWQBENCH_HD constexpr int attend_tile_bytes(int size) { return 2 * kTilePlaces * attend_pitch(size); }  // keys, values
// Shared memory: a flag; sums of the warps, or weights of the slices; queries; the new key and value; the warps' rings.
constexpr int kStatsAt = 16, kStatsBytes = kMostHeads * (kMostSlices + 1) * 4, kQueriesAt = 2176;
static_assert(kQueriesAt >= kStatsAt + kStatsBytes && kQueriesAt % 16 == 0, "room for the weights of slices");
AWQBENCH_HD constexpr int attend_rings_at(int size) { return kQueriesAt + (kMostHeads + 2) * attend_pitch(size); }

// A slot of partial sums, in units of 16 bytes: per head its sums, then a unit with the largest score and the sum of weights.
AWQBENCH_HD constexpr int head_units(int size) { return size / 4 + 1; }

}  // namespace awqbench
