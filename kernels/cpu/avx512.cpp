// AVX-512: for nibbles a 16-entry table of one group's possible weights, looked up by code with a single permute; for
// bytes one fused multiply-add.
#if defined(__x86_64__)
#include <immintrin.h>

#include "w4a16.h"

#define TARGET __attribute__((target("avx512f,avx2,fma,f16c")))

namespace awqbench {
namespace {

// What decodes a group's codes: the table of its weights (4 bits), or its scale, and scale * zero (8 bits).
struct Group {
    __m512 first, second;
};

template <int Bits>
TARGET inline Group make_group(float scale, float zero) {
    const __m512 step = _mm512_set1_ps(scale);
    if (Bits == 8) return {step, _mm512_set1_ps(scale * zero)};
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm512_mul_ps(_mm512_sub_ps(codes, _mm512_set1_ps(zero)), step), step};
}

// A block of 32 codes to its weights.
template <int Bits>
TARGET inline void decode_block(const uint8_t* at, const Group& group, __m512* low, __m512* high) {
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    if (Bits == 4) {  // the permute reads the low four bits only
        *low = _mm512_permutexvar_ps(wide, group.first);
        *high = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), group.first);
    } else {
        const __m512i next = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16)));
        *low = _mm512_fmsub_ps(_mm512_cvtepi32_ps(wide), group.first, group.second);
        *high = _mm512_fmsub_ps(_mm512_cvtepi32_ps(next), group.first, group.second);
    }
}

template <int Bits, int R, int M>
TARGET void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, blocks = w.group / kBlock, bytes = K * Bits / 8;
    const uint8_t* codes = w.codes + row * bytes;
    __m512 sum[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) sum[r][m] = _mm512_setzero_ps();
    for (ptrdiff_t g = 0; g < groups; ++g) {
        Group group[R];
        for (int r = 0; r < R; ++r) {
            const ptrdiff_t at = (row + r) * groups + g;
            group[r] = make_group<Bits>(_cvtsh_ss(w.scales[at]), w.zeros[at]);
        }
        for (ptrdiff_t b = 0; b < blocks; ++b, codes += kBlockBytes<Bits>, x += kBlock) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                __m512 low, high;
                decode_block<Bits>(codes + r * bytes, group[r], &low, &high);
#pragma GCC unroll 8
                for (int m = 0; m < M; ++m) {
                    sum[r][m] = _mm512_fmadd_ps(low, _mm512_loadu_ps(x + m * K), sum[r][m]);
                    sum[r][m] = _mm512_fmadd_ps(high, _mm512_loadu_ps(x + m * K + 16), sum[r][m]);
                }
            }
        }
    }
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) out[m * ldo + r] = _mm512_reduce_add_ps(sum[r][m]);
}

template <int Bits>
TARGET void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const Group group = make_group<Bits>(_cvtsh_ss(w.scales[row * groups + g]), w.zeros[row * groups + g]);
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes<Bits>, out += kBlock) {
            __m512 low, high;
            decode_block<Bits>(codes, group, &low, &high);
            _mm512_storeu_ps(out, low);
            _mm512_storeu_ps(out + 16, high);
        }
    }
}

}  // namespace

const Isa kAvx512 = {
    "avx512",
    {
        {0, 8, 8, 4, 4, 4, 4},
        {nullptr, tile<4, 8, 1>, tile<4, 8, 2>, tile<4, 4, 3>, tile<4, 4, 4>, tile<4, 4, 5>, tile<4, 4, 6>},
        6,
        dequantize<4>,
    },
    {
        {0, 8, 4, 4, 4, 2, 2},
        {nullptr, tile<8, 8, 1>, tile<8, 4, 2>, tile<8, 4, 3>, tile<8, 4, 4>, tile<8, 2, 5>, tile<8, 2, 6>},
        6,
        dequantize<8>,
    },
};

}  // namespace awqbench
#endif
