// The C interface of the dequantize kernel.
#include "dequantize_kernel.h"
#include "gemm_device.h"
#include "w4a16.h"

using namespace awqbench;

extern "C" int awqbench_cuda_dequantize(const void* tiles, const void* steps, void* w, int64_t N, int64_t K,
                                        int64_t group, int dtype, void* stream) {
    constexpr int64_t kMost = int64_t{1} << 30;  // of rows, k and blocks: they are counted in 32 bits
    const auto bits = [](const void* pointer) { return reinterpret_cast<uintptr_t>(pointer); };
    const int64_t chunks = ceil_div(k_tiles(K), kChunk);
    if (!takes(K, group) || N < 0 || N > kMost || K > kMost || row_tiles(N) * chunks > kMost ||
        (dtype != kHalf && dtype != kBfloat16) || (bits(tiles) | bits(w)) % 16 != 0 || bits(steps) % 4 != 0)
        return kInvalidValue;
    if (N == 0) return 0;
    Dequantize p{};
    p.tiles = static_cast<const uint8_t*>(tiles);
    p.steps = static_cast<const uint8_t*>(steps);
    p.weights = static_cast<uint16_t*>(w);
    p.N = N;
    p.K = K;
    p.k_tiles = static_cast<int>(k_tiles(K));
    p.chunks = static_cast<int>(chunks);
    p.groups = static_cast<int>(K / group);
    p.group = static_cast<int>(group);
    return start(dtype == kHalf ? dequantize_kernel<kHalf> : dequantize_kernel<kBfloat16>, p,
                 static_cast<int>(row_tiles(N) * chunks), kDequantizeThreads, kDequantizeShared, false, stream);
}
