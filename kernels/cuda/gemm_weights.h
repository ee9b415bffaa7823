// Where a warp's weights come from. A source hands out the tiles of one warp in order and keeps the next ones on their
// way. Fetching never stops at a segment's end: it walks the same sequence as the computation, some tiles ahead.
//
// A warp owns RB blocks of 16 rows. Per tile it needs RB * 512 bytes of codes, and the steps of the tile's groups.
#pragma once

#include "arch.h"
#include "gemm_split.h"

namespace awqbench {

constexpr int kBlockBytes = kTileBytes / kBlocks;

// The rows of a warp in a panel: blocks of 16 rows, counted from row 0.
template <int RB, int WR>
AWQBENCH_DEVICE int first_row_block(int panel, int warp_row) {
    return (panel * WR + warp_row) * RB;
}

// What a warp fetches, in order: rounds of the segments of its block. Each segment takes a multiple of DEPTH rounds, for
// all warps alike; a round past the segment's end brings a warp nothing.
template <int RB, int WR, int WK, int DEPTH>
struct FetchCursor {
    Segment segment;
    int k_tile, stop;  // stop: one round past the segment's last
    const uint8_t* codes;  // of the warp's first block in the tile, this lane's 16 bytes
    const uint8_t* steps;  // of the row tile's first step, this lane's 4 bytes

    AWQBENCH_DEVICE void enter(const Problem& p, int warp_row, int warp_k) {
        int rows = first_row_block<RB, WR>(segment.panel, warp_row);
        const int top = p.row_tiles * kBlocks - RB;  // a panel may be taller than what is left: its warps read the last rows
        if (rows > top) rows = top;
        const int row_tile = rows / kBlocks;
        k_tile = segment.begin + warp_k;
        constexpr int kRound = WK * DEPTH;
        stop = k_tile + (segment.end - segment.begin + kRound - 1) / kRound * kRound;
        codes = p.tiles + static_cast<uint64_t>(row_tile * p.k_tiles + k_tile) * kTileBytes + rows % kBlocks * kBlockBytes +
                static_cast<uint32_t>(arch::thread() % kLanes * 16);
        steps = p.steps + static_cast<uint64_t>(row_tile * p.groups) * kStepBytes + static_cast<uint32_t>(arch::thread() % kLanes * 4);
    }
    AWQBENCH_DEVICE FetchCursor(const Problem& p, const Segment& first, int warp_row, int warp_k) : segment(first) {
        enter(p, warp_row, warp_k);
    }
    AWQBENCH_DEVICE bool valid() const { return segment.valid(); }
    AWQBENCH_DEVICE bool here() const { return k_tile < segment.end; }  // never where not valid: end is 0 then
    AWQBENCH_DEVICE void advance(const Problem& p, int warp_row, int warp_k) {
        k_tile += WK;
        codes += WK * kTileBytes;
        if (k_tile == stop) {
            segment.next(p);
            if (segment.valid()) enter(p, warp_row, warp_k);
        }
    }
    AWQBENCH_DEVICE const uint8_t* step_at(int group) const { return steps + static_cast<uint64_t>(static_cast<uint32_t>(group)) * kStepBytes; }
};

// The groups of a k tile: one, or two of 32 (the second may not exist in the last tile).
template <bool TWO>
AWQBENCH_DEVICE void groups_of(const Problem& p, int k_tile, int (&group)[TWO ? 2 : 1]) {
    if constexpr (TWO) {
        group[0] = 2 * k_tile;
        group[1] = 2 * k_tile + 1 < p.groups ? 2 * k_tile + 1 : group[0];
    } else {
        group[0] = group_of_tile(k_tile, p.division);
    }
}

// Straight to registers, DEPTH tiles ahead. Steps come as the words of a whole row tile spread over the lanes, and are
// dealt out by shuffles.
template <int RB, int WR, int WK, int DEPTH, bool TWO>
struct RegisterWeights {
    static constexpr int kSharedBytes = 0, kGroups = TWO ? 2 : 1, kDepth = DEPTH;
    struct Slot {
        arch::Word4 codes[RB];
        uint32_t scales[kGroups], zeros[kGroups];
    };
    FetchCursor<RB, WR, WK, DEPTH> cursor;
    Slot slots[DEPTH];
    uint64_t policy;
    int warp_row, warp_k;

    AWQBENCH_DEVICE RegisterWeights(const Problem& p, const Segment& first, int row, int k, arch::Shared)
        : cursor(p, first, row, k), policy(arch::once_policy()), warp_row(row), warp_k(k) {
#pragma unroll
        for (int d = 0; d < DEPTH; ++d) {
#pragma unroll
            for (int b = 0; b < RB; ++b) fetch_codes(d, b);
            fetch_steps(p, d);
        }
    }
    AWQBENCH_DEVICE void fetch_codes(int d, int b) {
        if (cursor.here())
            slots[d].codes[b] = arch::load_once(cursor.codes + b * kBlockBytes, policy);
    }
    AWQBENCH_DEVICE void fetch_steps(const Problem& p, int d) {
        if (cursor.here()) {
            int group[kGroups];
            groups_of<TWO>(p, cursor.k_tile, group);
#pragma unroll
            for (int i = 0; i < kGroups; ++i) {
                // Two loads from one address: words 0 to 31 and words 8 to 39, of which the last 8 lanes bring the zeros.
                const uint8_t* const step = cursor.step_at(group[i]);
                slots[d].scales[i] = arch::load_word(step);
                slots[d].zeros[i] = arch::load_word(step + kZeroBytes);
            }
        }
        if (cursor.valid()) cursor.advance(p, warp_row, warp_k);
    }
    AWQBENCH_DEVICE void await(int) {}
    AWQBENCH_DEVICE arch::Word4 codes(int d, int b) const { return slots[d].codes[b]; }
    // Scales of rows g (low half) and g + 8, and the zero byte in both halves, of block `b` of the row tile.
    AWQBENCH_DEVICE uint32_t scales(int d, int i, int b, int) const {
        return arch::shuffle(slots[d].scales[i], b * 8 + arch::thread() % kLanes / 4);
    }
    AWQBENCH_DEVICE uint32_t zeros(int d, int i, int b, int) const {
        const int g = arch::thread() % kLanes / 4;
        return arch::byte_twice(arch::shuffle(slots[d].zeros[i], kLanes - 8 + b * 2 + g / 4), g % 4);
    }
    // Block b of a slot has been decoded: its registers take the next tile's block while the others are still in use.
    AWQBENCH_DEVICE void release(int d, int b) { fetch_codes(d, b); }
    AWQBENCH_DEVICE void release(const Problem& p, int d) { fetch_steps(p, d); }
    // A round without a tile.
    AWQBENCH_DEVICE void skip(const Problem& p, int d) {
#pragma unroll
        for (int b = 0; b < RB; ++b) fetch_codes(d, b);
        fetch_steps(p, d);
    }
};

// Through a ring in shared memory that belongs to the warp alone, filled by bulk copies that its lane 0 starts: SLOTS
// tiles on their way without a register.
template <int RB, int WR, int WK, int SLOTS, bool TWO>
struct BulkWeights {
    static constexpr int kGroups = TWO ? 2 : 1, kDepth = 1;
    static constexpr int kCodeBytes = RB * kBlockBytes, kSlotBytes = kCodeBytes + kGroups * kStepBytes;
    static constexpr int kWarpBytes = SLOTS * (kSlotBytes + 16);  // a barrier takes 8, padded to 16
    static constexpr int kSharedBytes = WR * WK * kWarpBytes;
    FetchCursor<RB, WR, WK, 1> cursor;
    arch::Shared ring, barriers;
    uint64_t policy;
    int warp_row, warp_k;
    int fetch_slot, slot;
    uint32_t parity;

    AWQBENCH_DEVICE BulkWeights(const Problem& p, const Segment& first, int row, int k, arch::Shared shared)
        : cursor(p, first, row, k),
          ring(shared + (row * WK + k) * kWarpBytes),
          barriers(ring + SLOTS * kSlotBytes),
          policy(arch::once_policy()),
          warp_row(row),
          warp_k(k),
          fetch_slot(0),
          slot(0),
          parity(0) {
        if (arch::thread() % kLanes == 0) {
            for (int s = 0; s < SLOTS; ++s) arch::barrier_init(barriers + 16 * s, 1);
            arch::barrier_fence();
        }
        arch::sync_warp();
        for (int s = 0; s < SLOTS; ++s) fetch(p);
    }
    // The next tile of the sequence to the slot that has just become free.
    AWQBENCH_DEVICE void fetch(const Problem& p) {
        while (cursor.valid() && !cursor.here()) cursor.advance(p, warp_row, warp_k);
        if (!cursor.valid()) return;
        if (arch::thread() % kLanes == 0) {
            const arch::Shared to = ring + fetch_slot * kSlotBytes, barrier = barriers + 16 * fetch_slot;
            int group[kGroups];
            groups_of<TWO>(p, cursor.k_tile, group);
            const int steps = (TWO && group[1] != group[0] ? 2 : 1) * kStepBytes;  // groups of a tile follow each other
            arch::barrier_expect(barrier, kCodeBytes + steps);
            arch::bulk_copy(to, cursor.codes, kCodeBytes, barrier, policy);
            arch::bulk_copy(to + kCodeBytes, cursor.step_at(group[0]), steps, barrier, policy);
        }
        fetch_slot = fetch_slot + 1 == SLOTS ? 0 : fetch_slot + 1;
        cursor.advance(p, warp_row, warp_k);
    }
    AWQBENCH_DEVICE void await(int) { arch::barrier_wait(barriers + 16 * slot, parity); }
    AWQBENCH_DEVICE arch::Word4 codes(int, int b) const {
        return arch::load_shared4(ring + slot * kSlotBytes + (b * kLanes + arch::thread() % kLanes) * 16);
    }
    AWQBENCH_DEVICE uint32_t scales(int, int i, int b, int group) const {
        return arch::load_shared(step(i, group) + (b * 8 + arch::thread() % kLanes / 4) * 4);
    }
    AWQBENCH_DEVICE uint32_t zeros(int, int i, int b, int group) const {
        return twice(arch::load_shared_byte(step(i, group) + kScaleBytes + b * 8 + arch::thread() % kLanes / 4));
    }
    AWQBENCH_DEVICE arch::Shared step(int i, int second) const {
        return ring + slot * kSlotBytes + kCodeBytes + (i != 0 && second ? kStepBytes : 0);
    }
    AWQBENCH_DEVICE void release(int, int) {}
    AWQBENCH_DEVICE void release(const Problem& p, int) {
        arch::sync_warp();  // all lanes have read the slot
        slot = slot + 1 == SLOTS ? 0 : slot + 1;
        if (slot == 0) parity ^= 1;
        fetch(p);
    }
    AWQBENCH_DEVICE void skip(const Problem&, int) {}
};

}  // namespace awqbench
