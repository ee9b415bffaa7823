// AVX2 parts of a decoding step.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>
#include <cstring>

#include "decode.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))

namespace awqbench {
namespace {

using F = __m256;
constexpr int kLanes = 8, kTall = 8;
TARGET inline F zero() { return _mm256_setzero_ps(); }
TARGET inline F splat(float value) { return _mm256_set1_ps(value); }
TARGET inline F load(const float* from) { return _mm256_loadu_ps(from); }
TARGET inline void store(float* to, F value) { _mm256_storeu_ps(to, value); }
TARGET inline F multiply_add(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
TARGET inline __m128i eight(const uint16_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
TARGET inline F half(const uint16_t* from) { return _mm256_cvtph_ps(eight(from)); }
TARGET inline F brain(const uint16_t* from) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight(from)), 16));
}
TARGET inline float sum(F value) {
    __m128 part = _mm_add_ps(_mm256_castps256_ps128(value), _mm256_extractf128_ps(value, 1));
    part = _mm_add_ps(part, _mm_movehl_ps(part, part));
    return _mm_cvtss_f32(_mm_add_ss(part, _mm_movehdup_ps(part)));
}

#include "decode_parts.h"

using I = __m256i;
TARGET inline I load_int(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
TARGET inline F halves(const uint16_t* from, ptrdiff_t left) {  // at most four
    uint64_t four = 0;
    if (left >= 4) {
        std::memcpy(&four, from, 8);
    } else {
        four = from[0];
        if (left > 1) four |= static_cast<uint64_t>(from[1]) << 16;
        if (left > 2) four |= static_cast<uint64_t>(from[2]) << 32;
    }
    return _mm256_castps128_ps256(_mm_cvtph_ps(_mm_cvtsi64_si128(static_cast<int64_t>(four))));
}
TARGET inline I bytes_wide(const uint8_t* from, ptrdiff_t left) {
    uint32_t four = 0;
    if (left >= 4) {
        std::memcpy(&four, from, 4);
    } else {
        four = from[0];
        if (left > 1) four |= static_cast<uint32_t>(from[1]) << 8;
        if (left > 2) four |= static_cast<uint32_t>(from[2]) << 16;
    }
    return _mm256_castsi128_si256(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(static_cast<int32_t>(four))));
}
TARGET inline F pick(F from, I index) { return _mm256_permutevar8x32_ps(from, index); }
TARGET inline I pick(I from, I index) { return _mm256_permutevar8x32_epi32(from, index); }
TARGET inline I load_codes(const uint8_t* from, ptrdiff_t left) {
    if (left >= 64) return load_int(from);
    return _mm256_zextsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
TARGET inline I low_nibbles(I both) { return _mm256_and_si256(both, _mm256_set1_epi8(15)); }
TARGET inline I high_nibbles(I both) { return low_nibbles(_mm256_srli_epi16(both, 4)); }
TARGET inline I pairs(I low, I high, const int8_t (*digit)[32]) {  // at most 4 * 15 * 128: no overflow of 16 bits
    return _mm256_add_epi16(_mm256_maddubs_epi16(low, load_int(digit[0])),
                            _mm256_maddubs_epi16(high, load_int(digit[1])));
}
TARGET inline I dot_digits(I low, I high, const int8_t (*digits)[2][32]) {
    const I one = _mm256_set1_epi16(1), step = _mm256_set1_epi16(256);
    const I top = _mm256_madd_epi16(pairs(low, high, digits[0]), step);
    const I two = _mm256_add_epi32(top, _mm256_madd_epi16(pairs(low, high, digits[1]), one));
    return _mm256_add_epi32(_mm256_slli_epi32(two, 8), _mm256_madd_epi16(pairs(low, high, digits[2]), one));
}
TARGET inline I multiply_int(I a, I b) { return _mm256_mullo_epi32(a, b); }
TARGET inline I subtract(I a, I b) { return _mm256_sub_epi32(a, b); }
TARGET inline F to_float(I value) { return _mm256_cvtepi32_ps(value); }
TARGET inline F multiply(F a, F b) { return _mm256_mul_ps(a, b); }

#include "decode_integer.h"

}  // namespace

const Integer kMaddubs = {prepare, integer_rows, kStep, sizeof(Prepared)};
const Parts kAvx2Parts = {dense, widen, norm, inverse_rms, gate, add, attend};

}  // namespace awqbench
#endif
