// Portable C++: what every other processor runs, and what the vector tiles are tested against.
#include "w4a16.h"

namespace awqbench {
namespace {

// Code number `at` of a block.
template <int Bits>
inline int code(const uint8_t* block, int at) {
    if (Bits == 8) return block[at];
    return at < kBlock / 2 ? block[at] & 0xF : block[at - kBlock / 2] >> 4;
}

template <int Bits>
void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const float scale = half_to_float(w.scales[row * groups + g]);
        const int zero = w.zeros[row * groups + g];
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes<Bits>, out += kBlock)
            for (int j = 0; j < kBlock; ++j) out[j] = static_cast<float>(code<Bits>(codes, j) - zero) * scale;
    }
}

template <int Bits>
void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t) {
    constexpr int kHalf = kBlock / 2;
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    float sum[kHalf] = {};  // sixteen partial sums: shorter chains, and a loop that compilers vectorise
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const float scale = half_to_float(w.scales[row * groups + g]);
        const int zero = w.zeros[row * groups + g];
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes<Bits>, x += kBlock)
            for (int j = 0; j < kHalf; ++j) {
                sum[j] += static_cast<float>(code<Bits>(codes, j) - zero) * scale * x[j];
                sum[j] += static_cast<float>(code<Bits>(codes, j + kHalf) - zero) * scale * x[j + kHalf];
            }
    }
    float total = 0;
    for (float part : sum) total += part;
    *out = total;
}

}  // namespace

const Isa kScalar = {
    "scalar",
    {{0, 1}, {nullptr, tile<4>}, 1, dequantize<4>},
    {{0, 1}, {nullptr, tile<8>}, 1, dequantize<8>},
};

}  // namespace awqbench
