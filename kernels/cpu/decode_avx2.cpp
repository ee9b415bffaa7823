// AVX2 parts of a decoding step.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>

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

}  // namespace

const Parts kAvx2Parts = {dense, widen, norm, inverse_rms, gate, add, attend};

}  // namespace awqbench
#endif
