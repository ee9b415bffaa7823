// AVX2: codes are widened to eight integers, converted, and scaled by one fused multiply-add.
#if defined(__x86_64__)
#include <immintrin.h>

#include "w4a16.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))

namespace awqbench {
namespace {

// The sums of R vectors, `step` apart, to R neighbouring floats: R is 4 or 2.
template <int R>
TARGET inline void store_sums(const __m256* v, int step, float* out) {
    const __m256 a = v[0], b = v[step], c = v[2 % R * step], d = v[3 % R * step];
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_add_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256 pairs = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
    if (R == 2)
        _mm_storel_pi(reinterpret_cast<__m64*>(out), sums);
    else
        _mm_storeu_ps(out, sums);
}

// Scales, and scales times zero points, of consecutive groups of a row: converted eight at a time, since one by one
// they would cost a good part of what the weights of a group do.
constexpr int kLanes = 8, kSteps = 32;
struct Steps {
    float scales[kLanes + kSteps], offsets[kLanes + kSteps];  // those of group g at kLanes + g
    float scale(ptrdiff_t g) const { return scales[kLanes + g]; }
    float offset(ptrdiff_t g) const { return offsets[kLanes + g]; }
};

TARGET inline void load_eight(const Weights& w, ptrdiff_t at, float* scales, float* offsets) {
    const __m256 scale = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(w.scales + at)));
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(w.zeros + at));
    _mm256_storeu_ps(scales, scale);
    _mm256_storeu_ps(offsets, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))));
}

TARGET inline void load_steps(const Weights& w, ptrdiff_t at, ptrdiff_t count, Steps* steps) {
    float *scales = steps->scales + kLanes, *offsets = steps->offsets + kLanes;
    ptrdiff_t g = 0;
    for (; g + kLanes <= count; g += kLanes) load_eight(w, at + g, scales + g, offsets + g);
    if (g == count) return;
    if (at + count >= kLanes) {  // the last eight, some of them again or of the groups before: never past the end
        g = count - kLanes;
        load_eight(w, at + g, scales + g, offsets + g);
    } else {
        for (; g < count; ++g) {
            scales[g] = _cvtsh_ss(w.scales[at + g]);
            offsets[g] = scales[g] * w.zeros[at + g];
        }
    }
}

struct Group {
    __m256 scale, offset;
};

TARGET inline Group make_group(const Steps& steps, ptrdiff_t g) {
    return {_mm256_set1_ps(steps.scale(g)), _mm256_set1_ps(steps.offset(g))};
}

TARGET inline Group load_group(const Weights& w, ptrdiff_t at) {
    const __m256 scale = _mm256_set1_ps(_cvtsh_ss(w.scales[at]));
    return {scale, _mm256_mul_ps(scale, _mm256_set1_ps(w.zeros[at]))};
}

enum Part { kLow, kHigh, kWhole };

// Eight bytes to the eight weights of their low nibbles, their high nibbles or the whole of them.
template <Part P>
TARGET inline __m256 decode(const uint8_t* codes, const Group& group) {
    __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes)));
    if (P == kLow) wide = _mm256_and_si256(wide, _mm256_set1_epi32(0xF));
    if (P == kHigh) wide = _mm256_srli_epi32(wide, 4);
    return _mm256_fmsub_ps(_mm256_cvtepi32_ps(wide), group.scale, group.offset);
}

// A block of 32 codes to its weights; the first 16 may belong to another group than the second.
template <int Bits>
TARGET inline void decode_block(const uint8_t* at, const Group& first, const Group& second, __m256* value) {
    if (Bits == 4) {
        value[0] = decode<kLow>(at, first);
        value[1] = decode<kLow>(at + 8, first);
        value[2] = decode<kHigh>(at, second);
        value[3] = decode<kHigh>(at + 8, second);
    } else {
        value[0] = decode<kWhole>(at, first);
        value[1] = decode<kWhole>(at + 8, first);
        value[2] = decode<kWhole>(at + 16, second);
        value[3] = decode<kWhole>(at + 24, second);
    }
}

// `Halves`: groups of 16, two to a block.
template <int Bits, int R, int M, bool Halves>
TARGET void multiply(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t ldo) {
    constexpr bool kTogether = R * M < 8;  // with eight sums in sixteen registers, one by one is 5 % faster
    const ptrdiff_t K = w.K, groups = K / w.group, blocks = Halves ? 1 : w.group / kBlock, bytes = K * Bits / 8;
    const uint8_t* codes = w.codes + row * bytes;
    __m256 sum[R][M];
    for (int r = 0; r < R; ++r)
        for (int m = 0; m < M; ++m) sum[r][m] = _mm256_setzero_ps();
    for (ptrdiff_t from = 0; from < groups; from += kSteps) {
        const ptrdiff_t count = groups - from < kSteps ? groups - from : kSteps;
        Steps steps[R];
        if (kTogether)
            for (int r = 0; r < R; ++r) load_steps(w, (row + r) * groups + from, count, &steps[r]);
        for (ptrdiff_t g = 0; g < count; g += 1 + Halves) {
            Group first[R], second[R];
            for (int r = 0; r < R; ++r) {
                const ptrdiff_t at = (row + r) * groups + from + g;
                first[r] = kTogether ? make_group(steps[r], g) : load_group(w, at);
                second[r] = !Halves ? first[r] : kTogether ? make_group(steps[r], g + 1) : load_group(w, at + 1);
            }
            for (ptrdiff_t b = 0; b < blocks; ++b, codes += kBlockBytes<Bits>, x += kBlock) {
#pragma GCC unroll 8
                for (int r = 0; r < R; ++r) {
                    __m256 value[4];
                    decode_block<Bits>(codes + r * bytes, first[r], second[r], value);
#pragma GCC unroll 8
                    for (int m = 0; m < M; ++m)
#pragma GCC unroll 4
                        for (int i = 0; i < 4; ++i)
                            sum[r][m] = _mm256_fmadd_ps(value[i], _mm256_loadu_ps(x + m * K + 8 * i), sum[r][m]);
                }
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
            const Group first = make_group(steps, g), second = make_group(steps, g + halves);
            for (ptrdiff_t b = 0; b < blocks; ++b, codes += kBlockBytes<Bits>, out += kBlock) {
                __m256 value[4];
                decode_block<Bits>(codes, first, second, value);
                for (int i = 0; i < 4; ++i) _mm256_storeu_ps(out + 8 * i, value[i]);
            }
        }
    }
}

TARGET void widen_bfloat(const uint16_t* from, float* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = bfloat_to_float(from[i]);
}

TARGET void narrow_bfloat(const float* from, uint16_t* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = float_to_bfloat(from[i]);
}

TARGET void widen_half(const uint16_t* from, float* to, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    for (; i < n; ++i) to[i] = _cvtsh_ss(from[i]);
}

TARGET void narrow_half(const float* from, uint16_t* to, ptrdiff_t n) {
    ptrdiff_t i = 0;
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                         _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    for (; i < n; ++i) to[i] = static_cast<uint16_t>(_cvtss_sh(from[i], _MM_FROUND_TO_NEAREST_INT));
}

template <int Bits>
constexpr Kernel kKernel = {
    {0, 4, 2, 2, 2},
    {nullptr, tile<Bits, 4, 1>, tile<Bits, 2, 2>, tile<Bits, 2, 3>, tile<Bits, 2, 4>},
    4,
    dequantize<Bits>,
};

}  // namespace

const Isa kAvx2 = {
    "avx2", kKernel<4>, kKernel<8>, {widen_bfloat, narrow_bfloat}, {widen_half, narrow_half},
};

}  // namespace awqbench
#endif
