// Portable C++: what every other processor runs, and what the vector tiles are tested against.
#include "w4a16.h"

namespace awqbench {
namespace {

constexpr int kHalfBlock = kBlock / 2;

// Code number `at` of a block.
template <int Bits>
inline int code(const uint8_t* block, int at) {
    if (Bits == 8) return block[at];
    return at < kHalfBlock ? block[at] & 0xF : block[at - kHalfBlock] >> 4;
}

// The scale and zero point of the half block that begins at code k of a row.
struct Step {
    float scale;
    int zero;
    Step(const Weights& w, ptrdiff_t row, ptrdiff_t k) {
        const ptrdiff_t at = row * (w.K / w.group) + k / w.group;
        scale = half_to_float(w.scales[at]);
        zero = w.zeros[at];
    }
    float value(int code) const { return static_cast<float>(code - zero) * scale; }
};

template <int Bits>
void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    for (ptrdiff_t k = 0; k < w.K; k += kBlock, codes += kBlockBytes<Bits>, out += kBlock) {
        const Step low(w, row, k), high(w, row, k + kHalfBlock);
        for (int j = 0; j < kHalfBlock; ++j) {
            out[j] = low.value(code<Bits>(codes, j));
            out[j + kHalfBlock] = high.value(code<Bits>(codes, j + kHalfBlock));
        }
    }
}

template <int Bits>
void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t) {
    const uint8_t* codes = w.codes + row * (w.K * Bits / 8);
    float sum[kHalfBlock] = {};  // sixteen partial sums: shorter chains, and a loop that compilers vectorise
    for (ptrdiff_t k = 0; k < w.K; k += kBlock, codes += kBlockBytes<Bits>, x += kBlock) {
        const Step low(w, row, k), high(w, row, k + kHalfBlock);
        for (int j = 0; j < kHalfBlock; ++j) {
            sum[j] += low.value(code<Bits>(codes, j)) * x[j];
            sum[j] += high.value(code<Bits>(codes, j + kHalfBlock)) * x[j + kHalfBlock];
        }
    }
    float total = 0;
    for (float part : sum) total += part;
    *out = total;
}

template <float (*One)(uint16_t)>
void widen(const uint16_t* from, float* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = One(from[i]);
}

template <uint16_t (*One)(float)>
void narrow(const float* from, uint16_t* to, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; ++i) to[i] = One(from[i]);
}

}  // namespace

const Isa kScalar = {
    "scalar",
    {{0, 1}, {nullptr, tile<4>}, 1, dequantize<4>},
    {{0, 1}, {nullptr, tile<8>}, 1, dequantize<8>},
    {widen<bfloat_to_float>, narrow<float_to_bfloat>},
    {widen<half_to_float>, narrow<float_to_half>},
};

}  // namespace awqbench
