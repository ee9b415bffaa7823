// AVX-512: for nibbles a 16-entry table of one group's possible weights, looked up by code with a single permute; for
// bytes one fused multiply-add.
#if defined(__x86_64__)
#include <immintrin.h>

#include "avx512.h"
#include "w4a16.h"

#define TARGET AWQBENCH_AVX512

namespace awqbench {
namespace {

// Scales, and scales times zero points, of up to 16 consecutive groups of a row: converted together, since one by one
// they would cost nearly as much as the weights of a group.
constexpr int kSteps = 16;
struct Steps {
    float scale[kSteps], offset[kSteps];
};

TARGET inline void load_steps(const Weights& w, ptrdiff_t at, ptrdiff_t count, Steps* steps) {
    const __mmask16 mask = static_cast<__mmask16>(0xffffu >> (kSteps - count));
    const __m512 scale = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w.scales + at));
    const __m512 zero = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, w.zeros + at)));
    _mm512_storeu_ps(steps->scale, scale);
    _mm512_storeu_ps(steps->offset, _mm512_mul_ps(scale, zero));
}

// What decodes a group's codes: the table of its weights (4 bits), or its scale, and scale * zero (8 bits).
struct Group {
    __m512 first, second;
};

template <int Bits>
TARGET inline Group make_group(const Steps& steps, ptrdiff_t g) {
    const __m512 scale = _mm512_set1_ps(steps.scale[g]), offset = _mm512_set1_ps(steps.offset[g]);
    if (Bits == 8) return {scale, offset};
    const __m512 codes = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    return {_mm512_fmsub_ps(codes, scale, offset), offset};
}

// A block of 32 codes to its weights; the first 16 may belong to another group than the second.
template <int Bits>
TARGET inline void decode_block(const uint8_t* at, const Group& first, const Group& second, __m512* low,
                                __m512* high) {
    const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    if (Bits == 4) {  // the permute reads the low four bits only
        *low = _mm512_permutexvar_ps(wide, first.first);
        *high = _mm512_permutexvar_ps(_mm512_srli_epi32(wide, 4), second.first);
    } else {
        const __m512i next = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 16)));
        *low = _mm512_fmsub_ps(_mm512_cvtepi32_ps(wide), first.first, first.second);
        *high = _mm512_fmsub_ps(_mm512_cvtepi32_ps(next), second.first, second.second);
    }
}

// `Halves`: groups of 16, two to a block.
template <int Bits, int R, int M, bool Halves>
TARGET void multiply(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, blocks = Halves ? 1 : w.group / kBlock, bytes = K * Bits / 8;
    // Two pointers: eight rows are then reached with few registers.
    const uint8_t *codes = w.codes + row * bytes, *upper = codes + 4 * bytes;
    __m512 sum[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) sum[r][m] = _mm512_setzero_ps();
    for (ptrdiff_t from = 0; from < groups; from += kSteps) {
        const ptrdiff_t count = groups - from < kSteps ? groups - from : kSteps;
        Steps steps[R];
        for (int r = 0; r < R; ++r) load_steps(w, (row + r) * groups + from, count, &steps[r]);
        for (ptrdiff_t g = 0; g < count; g += 1 + Halves) {
            Group first[R], second[R];
            for (int r = 0; r < R; ++r) {
                first[r] = make_group<Bits>(steps[r], g);
                second[r] = Halves ? make_group<Bits>(steps[r], g + 1) : first[r];
            }
            for (ptrdiff_t b = 0; b < blocks; ++b, x += kBlock) {
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    __m512 low, high;
                    decode_block<Bits>((r < 4 ? codes : upper) + r % 4 * bytes, first[r], second[r], &low, &high);
#pragma GCC unroll 8
                    for (int m = 0; m < M; ++m) {
                        sum[r][m] = _mm512_fmadd_ps(low, _mm512_loadu_ps(x + m * K), sum[r][m]);
                        sum[r][m] = _mm512_fmadd_ps(high, _mm512_loadu_ps(x + m * K + 16), sum[r][m]);
                    }
                }
                codes += kBlockBytes<Bits>;
                upper += kBlockBytes<Bits>;
            }
        }
    }
    for (int m = 0; m < M; ++m) store_sums<R>(&sum[0][m], M, out + m * ldo);
}

template <int Bits, int R, int M>
TARGET void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    if (w.group < kBlock)
        multiply<Bits, R, M, true>(w, row, x, out, ldo);
    else
        multiply<Bits, R, M, false>(w, row, x, out, ldo);
}

template <int Bits>
TARGET void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const bool halves = w.group < kBlock;
    const ptrdiff_t groups = w.K / w.group, blocks = halves ? 1 : w.group / kBlock;
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    for (ptrdiff_t from = 0; from < groups; from += kSteps) {
        const ptrdiff_t count = groups - from < kSteps ? groups - from : kSteps;
        Steps steps;
        load_steps(w, row * groups + from, count, &steps);
        for (ptrdiff_t g = 0; g < count; g += 1 + halves) {
            const Group first = make_group<Bits>(steps, g), second = make_group<Bits>(steps, g + halves);
            for (ptrdiff_t b = 0; b < blocks; ++b, codes += kBlockBytes<Bits>, out += kBlock) {
                __m512 low, high;
                decode_block<Bits>(codes, first, second, &low, &high);
                _mm512_storeu_ps(out, low);
                _mm512_storeu_ps(out + 16, high);
            }
        }
    }
}

}  // namespace

const Isa kAvx512 = {
    "avx512",
    {
        {0, 4, 8, 4, 4, 4, 4},
        {nullptr, tile<4, 4, 1>, tile<4, 8, 2>, tile<4, 4, 3>, tile<4, 4, 4>, tile<4, 4, 5>, tile<4, 4, 6>},
        6,
        dequantize<4>,
    },
    {
        {0, 8, 4, 4, 4, 2, 2},
        {nullptr, tile<8, 8, 1>, tile<8, 4, 2>, tile<8, 4, 3>, tile<8, 4, 4>, tile<8, 2, 5>, tile<8, 2, 6>},
        6,
        dequantize<8>,
    },
    kAvx2.bfloat,  // a constant, so it is there before this copies it
    kAvx2.half,
};

}  // namespace awqbench
#endif
