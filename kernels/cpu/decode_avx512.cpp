// AVX-512 parts of a decoding step.
#if defined(__x86_64__)
#include <immintrin.h>

#include <cmath>

#include "decode.h"

#define TARGET __attribute__((target("avx512f,avx2,fma,f16c")))

namespace awqbench {
namespace {

using F = __m512;
constexpr int kLanes = 16, kTall = 8;
TARGET inline F zero() { return _mm512_setzero_ps(); }
TARGET inline F splat(float value) { return _mm512_set1_ps(value); }
TARGET inline F load(const float* from) { return _mm512_loadu_ps(from); }
TARGET inline void store(float* to, F value) { _mm512_storeu_ps(to, value); }
TARGET inline F multiply_add(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
TARGET inline __m256i sixteen(const uint16_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
TARGET inline F half(const uint16_t* from) { return _mm512_cvtph_ps(sixteen(from)); }
TARGET inline F brain(const uint16_t* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(sixteen(from)), 16));
}
TARGET inline float sum(F value) { return _mm512_reduce_add_ps(value); }

#include "decode_parts.h"

}  // namespace

const Parts kAvx512Parts = {dense, widen, norm, inverse_rms, gate, add, attend};

}  // namespace awqbench
#endif
