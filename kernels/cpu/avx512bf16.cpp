// AVX-512 BF16: bfloat16 inputs are multiplied as they are, two products to an instruction.
//
// A code less its zero point is exact in bfloat16 (and the inputs are bfloat16), so products are exact and only the
// float sums round; a group's sum is multiplied by its scale. The instruction takes subnormal inputs as zero.
#include "w4a16.h"

#if defined(AWQBENCH_AVX512_BF16)
#include <immintrin.h>

#include "avx512.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma,f16c")))

namespace awqbench {
namespace {

// The integers -255 .. 255 as bfloat16: the 16 from 255 - z on are what the codes stand for at the zero point z.
struct Integers {
    uint16_t bits[512];
    constexpr Integers() : bits() {
        for (int i = 0; i < 511; ++i) {
            const int value = i - 255, size = value < 0 ? -value : value;
            int exponent = 0;
            while (size >> (exponent + 1)) ++exponent;
            const int mantissa = exponent > 7 ? size >> (exponent - 7) : size << (7 - exponent);
            const int magnitude = size ? ((127 + exponent) << 7) | (mantissa & 0x7f) : 0;
            bits[i] = static_cast<uint16_t>((value < 0 ? 0x8000 : 0) | magnitude);
        }
    }
};
alignas(64) constexpr Integers kIntegers;

// Both halves hold the table, so that the permute, which reads five bits of an index, needs no mask.
TARGET inline __m512i make_table(uint8_t zero) {
    const void* at = kIntegers.bits + 255 - zero;
    return _mm512_broadcast_i64x4(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
}

TARGET inline __m512 add_products(__m512 sum, __m512i weights, const Bfloat* x) {
    return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)_mm512_loadu_si512(x));
}

constexpr int kSteps = 16;

TARGET inline void load_scales(const Weights& w, ptrdiff_t at, ptrdiff_t count, float* scales) {
    const __mmask16 mask = static_cast<__mmask16>(0xffffu >> (kSteps - count));
    _mm512_storeu_ps(scales, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, w.scales + at)));
}

// Groups of whole pairs of blocks: 64 codes from 32 bytes. A register of low nibbles holds codes 0 .. 15 and 32 .. 47,
// one of high nibbles the others, and x comes in that order.
template <int R, int M>
TARGET void multiply_pairs(const Weights& w, ptrdiff_t row, const Bfloat* x, float* out, ptrdiff_t ldo) {
    const ptrdiff_t K = w.K, groups = K / w.group, pairs = w.group / (2 * kBlock), bytes = K / 2;
    const uint8_t* codes = w.codes + row * bytes;
    __m512 total[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) total[r][m] = _mm512_setzero_ps();
    for (ptrdiff_t from = 0; from < groups; from += kSteps) {
        const ptrdiff_t count = groups - from < kSteps ? groups - from : kSteps;
        float scales[R][kSteps];
        for (int r = 0; r < R; ++r) load_scales(w, (row + r) * groups + from, count, scales[r]);
        for (ptrdiff_t g = 0; g < count; ++g) {
            __m512 sum[R][M];
            for (int r = 0; r < R; ++r)
                for (int m = 0; m < M; ++m) sum[r][m] = _mm512_setzero_ps();
            for (ptrdiff_t p = 0; p < pairs; ++p, codes += kBlock, x += 2 * kBlock) {
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    const void* at = codes + r * bytes;
                    const __m512i wide = _mm512_cvtepu8_epi16(_mm256_loadu_si256(static_cast<const __m256i*>(at)));
                    const __m512i table = make_table(w.zeros[(row + r) * groups + from + g]);
                    const __m512i first = _mm512_permutexvar_epi16(wide, table);
                    const __m512i second = _mm512_permutexvar_epi16(_mm512_srli_epi16(wide, 4), table);
#pragma GCC unroll 8
                    for (int m = 0; m < M; ++m) {
                        sum[r][m] = add_products(sum[r][m], first, x + m * K);
                        sum[r][m] = add_products(sum[r][m], second, x + m * K + 32);
                    }
                }
            }
            for (int r = 0; r < R; ++r) {
                const __m512 scale = _mm512_set1_ps(scales[r][g]);
                for (int m = 0; m < M; ++m) total[r][m] = _mm512_fmadd_ps(sum[r][m], scale, total[r][m]);
            }
        }
    }
    for (int m = 0; m < M; ++m) store_sums<R>(&total[0][m], M, out + m * ldo);
}

template <int R, int M>
constexpr TileOf<Bfloat> kPairs = multiply_pairs<R, M>;

}  // namespace

const KernelOf<Bfloat> kAvx512Products = {
    {0, 4, 4, 2, 2, 2, 2},
    {nullptr, kPairs<4, 1>, kPairs<4, 2>, kPairs<2, 3>, kPairs<2, 4>, kPairs<2, 5>, kPairs<2, 6>},
    6,
    nullptr,
};

}  // namespace awqbench
#endif
