// Tiles of 16 places: keys and values to a ring in shared memory, scores, weights and their sums on the tensor cores.
//
// A warp takes tiles of its own, all query heads of a pass at once. Queries are the 16 rows of a product with 8 places
// each, whose result in registers is what the product of weights and values takes: as in flash attention. Weights are
// float32, and two 16-bit numbers there: rounded, and what rounding left over. So no head count loses anything.
#pragma once

#include "attend_heads.h"

namespace awqbench {

constexpr float kLog2E = 1.4426950408889634f;

// Copies of a tile by a warp: rows of places that hold no old token are zeros, since 0 * NaN would be NaN.
struct TileCopies {
    const uint16_t *keys = nullptr, *values = nullptr;  // of the first place seen
    int old = 0;                                        // places seen, but for the new token's
    int pieces, row, piece, row_step, piece_step;       // of 16 bytes: in a row; this lane's first, and on to the next

    AWQBENCH_DEVICE explicit TileCopies(const Attend& p) : pieces(padded_size(p.size) / 8) {
        const int lane = arch::thread() % kLanes;
        row = lane / pieces;
        piece = lane - row * pieces;
        row_step = kLanes / pieces;
        piece_step = kLanes - row_step * pieces;
    }
    AWQBENCH_DEVICE void at(const Attend& p, const Part& part) {
        const int64_t from = (static_cast<int64_t>(part.sequence * p.key_heads + part.key_head) * p.capacity + part.first) * p.size;
        keys = p.keys + from;
        values = p.values + from;
        old = part.end - 1 - part.first;
    }
    AWQBENCH_DEVICE void start(const Attend& p, int tile, arch::Shared to) const {
        const int pitch = attend_pitch(p.size);
        for (int r = row, c = piece; r < kTilePlaces; r += row_step, c += piece_step) {
            if (c >= pieces) {
                c -= pieces;
                if (++r >= kTilePlaces) break;
            }
            const int place = tile * kTilePlaces + r;
            const bool none = place >= old || c * 8 >= p.size;
            const int64_t from = none ? 0 : static_cast<int64_t>(place) * p.size + c * 8;
            const arch::Shared at = to + r * pitch + c * 16;
            arch::copy16(at, keys + from, none);
            arch::copy16(at + kTilePlaces * pitch, values + from, none);
        }
    }
};

// Of a warp: per row the largest score so far, the sum of weights (of this lane's places) and of weighted values. A lane
// has rows g = lane / 4 and g + 8, numbers 8 j + 2t and the next, t = lane % 4.
template <int STEPS>  // of 16 numbers
struct HeadSums {
    float most[2], weights[2], values[2 * STEPS][4];

    AWQBENCH_DEVICE void clear() {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            most[h] = -INFINITY;
            weights[h] = 0.f;
        }
#pragma unroll
        for (int j = 0; j < 2 * STEPS; ++j)
#pragma unroll
            for (int i = 0; i < 4; ++i) values[j][i] = 0.f;
    }
};

AWQBENCH_DEVICE float most_of_four(float value) {  // lanes that share rows
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        const float other = arch::float_of(arch::shuffle(arch::bits_of(value), arch::thread() % kLanes ^ step));
        value = other > value ? other : value;
    }
    return value;
}

// `queries`, `tile`: their places in shared memory; `seen`: places of the tile that are seen, at least one.
template <int D, int STEPS>
AWQBENCH_DEVICE void add_places(const Attend& p, arch::Shared queries, arch::Shared tile, int seen,
                                HeadSums<STEPS>& sums) {
    const int lane = arch::thread() % kLanes, pitch = attend_pitch(p.size), matrix = lane / 8, row = lane % 8;
    // Lane 8 i + j gives the address of row j of matrix i: of the queries, rows + 8 and then numbers + 8; of the keys,
    // numbers + 8 and then places + 8; of the values, places + 8 and then numbers + 8.
    const arch::Shared query = queries + (matrix % 2 * 8 + row) * pitch + matrix / 2 * 16;
    const arch::Shared key = tile + (matrix / 2 * 8 + row) * pitch + matrix % 2 * 16;
    const arch::Shared value = tile + (kTilePlaces + matrix % 2 * 8 + row) * pitch + matrix / 2 * 16;

    float scores[2][4] = {};
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        if (k * 16 >= p.size) break;
        uint32_t q[4], places[4];
        arch::load_matrices(query + k * 32, q);
        arch::load_matrices(key + k * 32, places);
        arch::multiply_add<D>(scores[0], q, places[0], places[1]);
        arch::multiply_add<D>(scores[1], q, places[2], places[3]);
    }

    // Powers of two are cheaper than those of e. cap * tanh(x) = cap - 2 cap / (e^2x + 1).
    float before[2];
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float most = sums.most[h];
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& score = scores[n][2 * h + e];
                if (p.cap > 0.f) {
                    const float grown = arch::power_of_two(score * (2.f * kLog2E * p.scale / p.cap));
                    score = kLog2E * p.cap * (1.f - 2.f * arch::reciprocal(grown + 1.f));
                } else {
                    score *= kLog2E * p.scale;
                }
                if (n * 8 + lane % 4 * 2 + e >= seen) score = -INFINITY;
                most = score > most ? score : most;
            }
        most = most_of_four(most);
        before[h] = arch::power_of_two(sums.most[h] - most);
        sums.most[h] = most;
        sums.weights[h] *= before[h];
#pragma unroll
        for (int n = 0; n < 2; ++n)
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& score = scores[n][2 * h + e];
                score = arch::power_of_two(score - most);
                sums.weights[h] += score;
            }
    }

    Pair weights[4], rest[4];  // rows g and g + 8 of places 0 to 7, then of 8 to 15
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float low = scores[i / 2][i % 2 * 2], high = scores[i / 2][i % 2 * 2 + 1];
        weights[i] = pair_of<D>(low, high);
        rest[i] = pair_of<D>(low - low_float<D>(weights[i]), high - high_float<D>(weights[i]));
    }
#pragma unroll
    for (int k = 0; k < STEPS; ++k) {
        if (k * 16 >= p.size) break;
        uint32_t v[4];
        arch::load_matrices_turned(value + k * 32, v);
#pragma unroll
        for (int n = 0; n < 2; ++n) {
            float(&sum)[4] = sums.values[2 * k + n];
#pragma unroll
            for (int i = 0; i < 4; ++i) sum[i] *= before[i / 2];
            arch::multiply_add<D>(sum, weights, v[2 * n], v[2 * n + 1]);
            arch::multiply_add<D>(sum, rest, v[2 * n], v[2 * n + 1]);
        }
    }
}

// The tiles of a warp, `DEPTH` of them on their way at a time. Queries are there.
template <int D, int STEPS, int DEPTH>
struct TileStream {
    TileCopies copies;
    arch::Shared ring;
    int next;  // to set out

    AWQBENCH_DEVICE TileStream(const Attend& p, arch::Shared at) : copies(p), ring(at), next(0) {}
    AWQBENCH_DEVICE void begin(const Attend& p, const Part& part, int warp) {
        copies.at(p, part);
        next = part.tile + warp;
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) start(p, part, d);
    }
    AWQBENCH_DEVICE void start(const Attend& p, const Part& part, int slot) {
        if (next < part.tile_end) copies.start(p, next, ring + slot * attend_tile_bytes(p.size));
        arch::copies_commit();
        next += p.warps;
    }
    AWQBENCH_DEVICE void take(const Attend& p, const Part& part, int warp, arch::Shared queries, HeadSums<STEPS>& sums) {
        const int lane = arch::thread() % kLanes, pitch = attend_pitch(p.size);
        int slot = 0;
        for (int tile = part.tile + warp; tile < part.tile_end; tile += p.warps) {
            arch::copies_wait_but<DEPTH - 1>();
            arch::sync_warp();
            const arch::Shared at = ring + slot * attend_tile_bytes(p.size);
            const int seen = part.end - part.first - tile * kTilePlaces;
            if (seen <= kTilePlaces) {  // the new token is the last one seen here
                const arch::Shared made = queries + kMostHeads * pitch, key = at + (seen - 1) * pitch;
                for (int piece = lane; piece < copies.pieces; piece += kLanes) {
                    arch::store_shared4(key + piece * 16, arch::load_shared4(made + piece * 16));
                    arch::store_shared4(key + kTilePlaces * pitch + piece * 16, arch::load_shared4(made + pitch + piece * 16));
                }
                arch::sync_warp();
            }
            add_places<D>(p, queries, at, seen, sums);
            arch::sync_warp();
            start(p, part, slot);
            slot = slot + 1 == DEPTH ? 0 : slot + 1;
        }
        arch::copies_wait();  // of none: the ring is free
    }
};

}  // namespace awqbench
