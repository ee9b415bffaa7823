// Where the code of weight [row, k] lies, and its scale and zero point: index maps for the host and the device.
//
// W [N, K] is cut into tiles of 64 rows x 64 k, 2 KB each; the k tiles of a row tile follow each other. A tile is
// int32 [4 blocks of 16 rows][32 lanes][4 steps of 16 k]. A word holds the 8 codes that one lane owns of the 16 x 16
// A fragment of mma.m16n8k16 (and of wgmma with A in registers), so that a 16-byte load per lane brings a warp the
// fragments of 16 rows x 64 k. With g = lane / 4, t = lane % 4, pair p of a word is
//     p = 0: row g, k 2t, 2t+1    1: row g+8, k 2t, 2t+1    2: row g, k 2t+8, 2t+9    3: row g+8, k 2t+8, 2t+9
// with its even k in nibble p and its odd k in nibble p + 4.
//
// Per row tile and group stands a step of 160 bytes: half scales [4 blocks][8 g][row g, row g+8], then zero points
// [4 blocks][8 g] with row g in the low and row g+8 in the high nibble. Rows and k beyond N and K are padded with 0.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define AWQBENCH_HD __host__ __device__ __forceinline__
#else
#define AWQBENCH_HD inline
#endif

namespace awqbench {

constexpr int kTileRows = 64, kTileK = 64;
constexpr int kTileWords = kTileRows * kTileK / 8;
constexpr int kTileBytes = 4 * kTileWords;
constexpr int kBlockRows = 16, kBlocks = kTileRows / kBlockRows;  // blocks of a row tile
constexpr int kFragmentK = 16, kFragments = kTileK / kFragmentK;  // words of a lane in a tile
constexpr int kLanes = 32;
constexpr int kScaleBytes = 2 * kTileRows, kZeroBytes = kTileRows / 2;
constexpr int kStepBytes = kScaleBytes + kZeroBytes;

AWQBENCH_HD constexpr int64_t ceil_div(int64_t value, int64_t by) { return (value + by - 1) / by; }
AWQBENCH_HD constexpr int64_t row_tiles(int64_t N) { return ceil_div(N, kTileRows); }
AWQBENCH_HD constexpr int64_t k_tiles(int64_t K) { return ceil_div(K, kTileK); }
AWQBENCH_HD constexpr int64_t padded_rows(int64_t N) { return kTileRows * row_tiles(N); }
AWQBENCH_HD constexpr int64_t padded_k(int64_t K) { return kTileK * k_tiles(K); }
AWQBENCH_HD constexpr int64_t tiles_bytes(int64_t N, int64_t K) { return row_tiles(N) * k_tiles(K) * kTileBytes; }
AWQBENCH_HD constexpr int64_t steps_bytes(int64_t N, int64_t groups) { return row_tiles(N) * groups * kStepBytes; }

// Whether the layout holds rows of K in such groups: 32, a multiple of 64, or one per row of a multiple of 32.
AWQBENCH_HD constexpr bool takes(int64_t K, int64_t group) {
    return group > 0 && K > 0 && K % group == 0 && (group == 32 || group % 64 == 0 || (group == K && K % 32 == 0));
}

// The first word of a tile, and the first byte of a step.
AWQBENCH_HD constexpr int64_t tile_word(int64_t row_tile, int64_t k_tile, int64_t k_tile_count) {
    return (row_tile * k_tile_count + k_tile) * kTileWords;
}
AWQBENCH_HD constexpr int64_t step_byte(int64_t row_tile, int64_t group, int64_t groups) {
    return (row_tile * groups + group) * kStepBytes;
}

// The word of a tile: block, lane and fragment.
AWQBENCH_HD constexpr int word_in_tile(int block, int lane, int fragment) {
    return (block * kLanes + lane) * kFragments + fragment;
}

struct Place {
    int64_t word;  // index into tiles
    int nibble;    // the code is (word >> 4 * nibble) & 15
};

AWQBENCH_HD constexpr Place place_of(int64_t row, int64_t k, int64_t k_tile_count) {
    const int block = static_cast<int>(row % kTileRows / kBlockRows), in_block = static_cast<int>(row % kBlockRows);
    const int fragment = static_cast<int>(k % kTileK / kFragmentK), in_fragment = static_cast<int>(k % kFragmentK);
    const int lane = in_block % 8 * 4 + in_fragment % 8 / 2;
    const int pair = in_block / 8 + 2 * (in_fragment / 8);
    return {tile_word(row / kTileRows, k / kTileK, k_tile_count) + word_in_tile(block, lane, fragment),
            pair + 4 * (in_fragment % 2)};
}

struct Element {
    int64_t row, k;
};

AWQBENCH_HD constexpr Element element_at(int64_t word, int nibble, int64_t k_tile_count) {
    const int64_t tile = word / kTileWords;
    const int within = static_cast<int>(word % kTileWords), fragment = within % kFragments;
    const int lane = within / kFragments % kLanes, block = within / kFragments / kLanes, pair = nibble % 4;
    return {tile / k_tile_count * kTileRows + block * kBlockRows + pair % 2 * 8 + lane / 4,
            tile % k_tile_count * kTileK + fragment * kFragmentK + pair / 2 * 8 + lane % 4 * 2 + nibble / 4};
}

// Within a step: the byte of a row's scale, the byte of its zero point and the bit that starts it.
AWQBENCH_HD constexpr int scale_byte(int row_in_tile) {
    return 2 * (row_in_tile / kBlockRows * kBlockRows + row_in_tile % 8 * 2 + row_in_tile % kBlockRows / 8);
}
AWQBENCH_HD constexpr int zero_byte(int row_in_tile) {
    return kScaleBytes + row_in_tile / kBlockRows * 8 + row_in_tile % 8;
}
AWQBENCH_HD constexpr int zero_shift(int row_in_tile) { return row_in_tile % kBlockRows / 8 * 4; }

}  // namespace awqbench
