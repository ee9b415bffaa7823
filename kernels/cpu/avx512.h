// What the files of AVX-512 tiles have in common.
#pragma once

#include <immintrin.h>

#define AWQBENCH_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx2,fma,f16c")))

namespace awqbench {
namespace {

// The sums of R vectors, `step` apart, to R neighbouring floats. Four at a time: one by one they cost
// a sixth of a row of 576 weights.
template <int R>
AWQBENCH_AVX512 inline void store_sums(const __m512* v, int step, float* out) {
    for (int r = 0; r < R; r += 4) {  // where R is 2, the second pair is the first again
        const __m512 a = v[r * step], b = v[(r + 1) * step], c = v[(r + 2) % R * step], d = v[(r + 3) % R * step];
        const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
        const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
        const __m512 quads = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
        const __m256 pairs = _mm256_add_ps(_mm512_castps512_ps256(quads),
                                           _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(quads), 1)));
        const __m128 sums = _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
        if (R == 2)
            _mm_storel_pi(reinterpret_cast<__m64*>(out), sums);
        else
            _mm_storeu_ps(out + r, sums);
    }
}

}  // namespace
}  // namespace awqbench
