// W [N, K] in half or bfloat16 from the packed layout: the weights of large M, for a dense matmul.
//
// A block takes the 64 rows of a row tile and kChunk k tiles: a warp per 16 rows. All loads of a warp are issued before
// the first is used. A lane's codes lie 2 by 2 in memory order of the MMA fragment, so rows are put together in shared
// memory, then stored 16 bytes per lane, 128 consecutive bytes per row. The writes, four times the reads, set the time.
#include <cuda_runtime.h>

#include "dequant.h"
#include "w4a16.h"

namespace awqbench {
namespace {

constexpr int kChunk = 4;
constexpr int kThreads = kBlocks * kLanes;
constexpr int kRowWords = kTileK / 2;        // pairs in 64 k of a row
constexpr int kRowPitch = kRowWords + 4;     // no bank conflicts: rows g start 4 banks apart, lanes t fill them
constexpr int kStoreWords = 4;               // a 16-byte store: 8 k

template <int D>
__global__ void __launch_bounds__(kThreads)
dequantize(const uint4* __restrict__ tiles, const uint8_t* __restrict__ steps, uint16_t* __restrict__ w, int64_t N,
           int64_t K, int groups, int group) {
    __shared__ __align__(16) Pair rows[kBlocks][kBlockRows][kRowPitch];
    const int lane = threadIdx.x % kLanes, block = threadIdx.x / kLanes, g = lane / 4, t = lane % 4;
    const int columns = static_cast<int>(k_tiles(K)), first = blockIdx.y * kChunk;
    const int64_t row_tile = blockIdx.x;
    const int count = min(kChunk, columns - first);

    uint4 words[kChunk];
    const uint4* source = tiles + tile_word(row_tile, first, columns) / 4 + word_in_tile(block, lane, 0) / 4;
#pragma unroll
    for (int i = 0; i < kChunk; ++i)
        if (i < count) words[i] = source[i * (kTileWords / 4)];

    Pair(&mine)[kBlockRows][kRowPitch] = rows[block];
#pragma unroll
    for (int i = 0; i < kChunk; ++i) {
        if (i >= count) break;
        const uint32_t fragment[kFragments] = {words[i].x, words[i].y, words[i].z, words[i].w};
        Offsets zero{};
        uint32_t scales = 0;
#pragma unroll
        for (int s = 0; s < kFragments; ++s) {
            if (s == 0 || (s == 2 && group == 32)) {  // padded k read the last group, and are not stored
                const int k = (first + i) * kTileK + s * kFragmentK;
                const uint8_t* step = steps + step_byte(row_tile, min(k / group, groups - 1), groups);
                scales = reinterpret_cast<const uint32_t*>(step)[block * 8 + g];
                zero = offsets<D>(step[kScaleBytes + block * 8 + g]);
            }
            Pair differences[4];
            decode<D>(fragment[s], zero, differences);
#pragma unroll
            for (int pair = 0; pair < 4; ++pair) {
                const uint16_t scale = static_cast<uint16_t>(pair % 2 ? scales >> 16 : scales);
                mine[g + pair % 2 * 8][s * 8 + pair / 2 * 4 + t] = scaled<D>(differences[pair], scale);
            }
        }
        __syncwarp();
        const int store = lane % 8;
        const int64_t k = static_cast<int64_t>(first + i) * kTileK + store * 8;
#pragma unroll
        for (int r = lane / 8; r < kBlockRows; r += 4) {
            const int64_t row = row_tile * kTileRows + block * kBlockRows + r;
            // K is a multiple of 32, so a store of 8 lies inside or outside as a whole, and is aligned.
            if (row < N && k < K)
                *reinterpret_cast<uint4*>(w + row * K + k) =
                    *reinterpret_cast<const uint4*>(&mine[r][store * kStoreWords]);
        }
        __syncwarp();
    }
}

}  // namespace
}  // namespace awqbench

using namespace awqbench;

extern "C" int awqbench_cuda_dequantize(const void* tiles, const void* steps, void* w, int64_t N, int64_t K,
                                        int64_t group, int dtype, void* stream) {
    const bool aligned = (reinterpret_cast<uintptr_t>(tiles) | reinterpret_cast<uintptr_t>(w)) % 16 == 0 &&
                         reinterpret_cast<uintptr_t>(steps) % 4 == 0;
    if (!takes(K, group) || N < 0 || (dtype != kHalf && dtype != kBfloat16) || !aligned) return cudaErrorInvalidValue;
    if (N == 0) return cudaSuccess;
    const dim3 grid(static_cast<unsigned>(row_tiles(N)), static_cast<unsigned>(ceil_div(k_tiles(K), kChunk)));
    const auto run = dtype == kHalf ? dequantize<kHalf> : dequantize<kBfloat16>;
    run<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
        static_cast<const uint4*>(tiles), static_cast<const uint8_t*>(steps), static_cast<uint16_t*>(w), N, K,
        static_cast<int>(K / group), static_cast<int>(group));
    return cudaGetLastError();
}
