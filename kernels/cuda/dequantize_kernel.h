// W [N, K] in half or bfloat16 from the packed layout: the weights of large M, for a dense matmul.
//
// A block takes the 64 rows of a row tile and kChunk k tiles: a warp per 16 rows. All loads of a warp set out before the
// first is used. A lane's codes lie 2 by 2 in the order of an MMA fragment, so rows are put together in shared memory,
// then stored 16 bytes per lane, 128 consecutive bytes per row. The writes, four times the reads, set the time.
#pragma once

#include "arch.h"

namespace awqbench {

struct Dequantize {
    const uint8_t *tiles, *steps;
    uint16_t* weights;
    int64_t N, K;
    int k_tiles, chunks, groups, group;
};

constexpr int kChunk = 4;
constexpr int kDequantizeThreads = kBlocks * kLanes;
constexpr int kRowPitch = kTileK * 2 + 16;  // bytes. No bank conflicts: rows g start 4 banks apart, lanes t fill them
constexpr int kDequantizeShared = kBlocks * kBlockRows * kRowPitch;

template <int D>
AWQBENCH_KERNEL(kDequantizeThreads, 1) dequantize_kernel(const Dequantize p) {
    const int lane = arch::thread() % kLanes, block = arch::thread() / kLanes, g = lane / 4, t = lane % 4;
    const int row_tile = arch::block() / p.chunks, first = arch::block() % p.chunks * kChunk;
    const int count = p.k_tiles - first < kChunk ? p.k_tiles - first : kChunk;
    const arch::Shared rows = arch::shared_memory() + block * (kBlockRows * kRowPitch);

    const uint64_t policy = arch::once_policy();
    const uint8_t* const source = p.tiles + 4 * (tile_word(row_tile, first, p.k_tiles) + word_in_tile(block, lane, 0));
    arch::Word4 words[kChunk];
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
        if (i < count) words[i] = arch::load_once(source + i * kTileBytes, policy);

#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
        if (i >= count) break;
        const int tile_k = (first + i) * kTileK;
        Offsets zero{};
        Factor<D> factors[2]{};
#pragma unroll
        for (int s = 0; s < kFragments; ++s) {
            if (s == 0 || (s == 2 && p.group == 32)) {  // padded k read the last group, and are not stored
                const int group = (tile_k + s * kFragmentK) / p.group;
                const uint8_t* const step = p.steps + step_byte(row_tile, group < p.groups ? group : p.groups - 1, p.groups);
                const uint32_t scales = arch::load_word(step + 4 * (8 * block + g));
                factors[0] = factor<D>(low_twice(scales));
                factors[1] = factor<D>(high_twice(scales));
                zero = offsets<D>(arch::load_word(step + kScaleBytes + 8 * block + g / 4 * 4) >> 8 * (g % 4) & 0xffu);
            }
            Pair differences[4];
            decode<D>(words[i].at[s], zero, differences);
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                arch::store_shared(rows + (g + pair % 2 * 8) * kRowPitch + s * 32 + pair / 2 * 16 + t * 4,
                                   scaled<D>(differences[pair], factors[pair % 2]));
            }
        }
        arch::sync_warp();
        // K is a multiple of 32, so a store of 8 weights lies inside or outside as a whole, and is aligned.
        const int64_t k = tile_k + lane % 8 * 8;
#pragma unroll
        for (int r = 0; r < kBlockRows; r += 4) {
            const int in_block = r + lane / 8;
            const int64_t row = static_cast<int64_t>(row_tile) * kTileRows + block * kBlockRows + in_block;
            const arch::Word4 eight = arch::load_shared4(rows + in_block * kRowPitch + lane % 8 * 16);
            if (row < p.N && k < p.K) arch::store_words(p.weights + row * p.K + k, eight);
        }
        arch::sync_warp();
    }
}

}  // namespace awqbench
