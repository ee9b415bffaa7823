// AVX2: codes are widened to eight integers, converted, and scaled by one fused multiply-add.
#if defined(__x86_64__)
#include <immintrin.h>

#include "w4a16.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))

namespace awqbench {
namespace {

TARGET inline float horizontal_sum(__m256 v) {
    __m128 sum = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
    return _mm_cvtss_f32(_mm_add_ss(sum, _mm_movehdup_ps(sum)));
}

enum Part { kLow, kHigh, kWhole };

// Eight bytes to the eight weights of their low nibbles, their high nibbles or the whole of them.
template <Part P>
TARGET inline __m256 decode(const uint8_t* codes, __m256 scale, __m256 offset) {
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
    if (P == kLow) wide = _mm256_and_si256(wide, _mm256_set1_epi32(0xF));
    if (P == kHigh) wide = _mm256_srli_epi32(wide, 4);
    return _mm256_fmsub_ps(_mm256_cvtepi32_ps(wide), scale, offset);
}

// A block of 32 codes to its weights.
template <int Bits>
TARGET inline void decode_block(const uint8_t* at, __m256 scale, __m256 offset, __m256* value) {
    if (Bits == 4) {
        value[0] = decode<kLow>(at, scale, offset);
        value[1] = decode<kLow>(at + 8, scale, offset);
        value[2] = decode<kHigh>(at, scale, offset);
        value[3] = decode<kHigh>(at + 8, scale, offset);
    } else {
        value[0] = decode<kWhole>(at, scale, offset);
        value[1] = decode<kWhole>(at + 8, scale, offset);
        value[2] = decode<kWhole>(at + 16, scale, offset);
        value[3] = decode<kWhole>(at + 24, scale, offset);
    }
}

template <int Bits, int R, int M>
TARGET void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, blocks = w.group / kBlock, bytes = K * Bits / 8;
    const uint8_t* codes = w.codes + row * bytes;
    __m256 sum[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) sum[r][m] = _mm256_setzero_ps();
    for (ptrdiff_t g = 0; g < groups; ++g) {
        __m256 scale[R], offset[R];
        for (int r = 0; r < R; ++r) {
            const ptrdiff_t at = (row + r) * groups + g;
            scale[r] = _mm256_set1_ps(_cvtsh_ss(w.scales[at]));
            offset[r] = _mm256_mul_ps(scale[r], _mm256_set1_ps(w.zeros[at]));
        }
        for (ptrdiff_t b = 0; b < blocks; ++b, codes += kBlockBytes<Bits>, x += kBlock) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                __m256 value[4];
                decode_block<Bits>(codes + r * bytes, scale[r], offset[r], value);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
                    for (int i = 0; i < 4; ++i)
                        sum[r][m] = _mm256_fmadd_ps(value[i], _mm256_loadu_ps(x + m * K + 8 * i), sum[r][m]);
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) out[m * ldo + r] = horizontal_sum(sum[r][m]);
}

template <int Bits>
TARGET void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const __m256 scale = _mm256_set1_ps(_cvtsh_ss(w.scales[row * groups + g]));
        const __m256 offset = _mm256_mul_ps(scale, _mm256_set1_ps(w.zeros[row * groups + g]));
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes<Bits>, out += kBlock) {
            __m256 value[4];
            decode_block<Bits>(codes, scale, offset, value);
            for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + 8 * i, value[i]);
        }
    }
}

template <int Bits>
constexpr Kernel kKernel = {
    {0, 4, 4, 2, 2},
    {nullptr, tile<Bits, 4, 1>, tile<Bits, 4, 2>, tile<Bits, 2, 3>, tile<Bits, 2, 4>},
    4,
    dequantize<Bits>,
};

}  // namespace

const Isa kAvx2 = {"avx2", kKernel<4>, kKernel<8>};

}  // namespace awqbench
#endif
