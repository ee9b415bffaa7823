// AVX-512: a 16-entry table of one group's possible weights, looked up by code with a single permute.
#if defined(__x86_64__)
#include <immintrin.h>

#include "w4a16.h"

#define TARGET __attribute__((target("avx512f,avx2,fma,f16c")))

namespace awqbench {
namespace {

TARGET inline __m512 group_table(float scale, float zero) {
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return _mm512_mul_ps(_mm512_sub_ps(codes, _mm512_set1_ps(zero)), _mm512_set1_ps(scale));
}

template <int R, int M>
TARGET void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, blocks = w.group / kBlock, bytes = K / 2;
    const uint8_t* codes = w.codes + row * bytes;
    __m512 sum[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) sum[r][m] = _mm512_setzero_ps();
    for (ptrdiff_t g = 0; g < groups; ++g) {
        __m512 table[R];
        for (int r = 0; r < R; ++r) {
            const ptrdiff_t at = (row + r) * groups + g;
            table[r] = group_table(_cvtsh_ss(w.scales[at]), w.zeros[at]);
        }
        for (ptrdiff_t b = 0; b < blocks; ++b, codes += kBlockBytes, x += kBlock) {
#pragma GCC unroll 8
            for (int r = 0; r < R; ++r) {
                const __m128i packed = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + r * bytes));
                const __m512i wide = _mm512_cvtepu8_epi32(packed);  // the permute reads the low four bits only
                const __m512 low = _mm512_permutexvar_ps(wide, table[r]);
                const __m512 high = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), table[r]);
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

TARGET void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K / 2);
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const __m512 table = group_table(_cvtsh_ss(w.scales[row * groups + g]), w.zeros[row * groups + g]);
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes, out += kBlock) {
            const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes)));
            _mm512_storeu_ps(out, _mm512_permutexvar_ps(wide, table));
            _mm512_storeu_ps(out + 16, _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), table));
        }
    }
}

}  // namespace

const Isa kAvx512 = {
    "avx512",
    {0, 8, 8, 4, 4, 4, 4},
    {nullptr, tile<8, 1>, tile<8, 2>, tile<4, 3>, tile<4, 4>, tile<4, 5>, tile<4, 6>},
    6,
    dequantize,
};

}  // namespace awqbench
#endif
