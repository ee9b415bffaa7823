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

#undef TARGET
#define TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")))

namespace {
namespace vnni {

using I = __m512i;
TARGET inline I load_int(const void* from) { return _mm512_loadu_si512(from); }
TARGET inline F halves(const uint16_t* from, ptrdiff_t left) {  // at most four
    const __mmask8 mask = left >= 4 ? 15 : (1 << left) - 1;
    return _mm512_castps128_ps512(_mm_cvtph_ps(_mm_maskz_loadu_epi16(mask, from)));
}
TARGET inline I bytes_wide(const uint8_t* from, ptrdiff_t left) {
    const __mmask16 mask = left >= 4 ? 15 : (1 << left) - 1;
    return _mm512_castsi128_si512(_mm_cvtepu8_epi32(_mm_maskz_loadu_epi8(mask, from)));
}
TARGET inline F pick(F from, I index) { return _mm512_permutexvar_ps(index, from); }
TARGET inline I pick(I from, I index) { return _mm512_permutexvar_epi32(index, from); }
TARGET inline I load_codes(const uint8_t* from, ptrdiff_t left) {
    if (left >= 128) return _mm512_loadu_si512(from);
    return _mm512_maskz_loadu_epi8((1ull << (left / 2)) - 1, from);
}
TARGET inline I low_nibbles(I both) { return _mm512_and_si512(both, _mm512_set1_epi8(15)); }
TARGET inline I high_nibbles(I both) { return low_nibbles(_mm512_srli_epi16(both, 4)); }
TARGET inline I dot_digits(I low, I high, const int8_t (*digits)[2][64]) {
    I sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), low, load_int(digits[0][0]));
    sum = _mm512_slli_epi32(_mm512_dpbusd_epi32(sum, high, load_int(digits[0][1])), 8);
    sum = _mm512_dpbusd_epi32(sum, low, load_int(digits[1][0]));
    sum = _mm512_slli_epi32(_mm512_dpbusd_epi32(sum, high, load_int(digits[1][1])), 8);
    sum = _mm512_dpbusd_epi32(sum, low, load_int(digits[2][0]));
    return _mm512_dpbusd_epi32(sum, high, load_int(digits[2][1]));
}
TARGET inline I multiply_int(I a, I b) { return _mm512_mullo_epi32(a, b); }
TARGET inline I subtract(I a, I b) { return _mm512_sub_epi32(a, b); }
TARGET inline F to_float(I value) { return _mm512_cvtepi32_ps(value); }
TARGET inline F multiply(F a, F b) { return _mm512_mul_ps(a, b); }

#include "decode_integer.h"

}  // namespace vnni
}  // namespace

const Integer kVnni = {vnni::prepare, vnni::integer_rows, vnni::kStep, sizeof(vnni::Prepared)};
const Parts kAvx512Parts = {dense, widen, norm, inverse_rms, gate, add, attend};

}  // namespace awqbench
#endif
