// Portable C++: what every other processor runs, and what the vector tiles are tested against.
#include "w4a16.h"

namespace awqbench {
namespace {

void dequantize(const Weights& w, ptrdiff_t row, float* out) {
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K / 2);
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const float scale = half_to_float(w.scales[row * groups + g]);
        const int zero = w.zeros[row * groups + g];
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes, out += kBlock)
            for (int j = 0; j < kBlockBytes; ++j) {
                out[j] = static_cast<float>((codes[j] & 0xF) - zero) * scale;
                out[j + kBlockBytes] = static_cast<float>((codes[j] >> 4) - zero) * scale;
            }
    }
}

void tile(const Weights& w, ptrdiff_t row, const float* x, float* out, ptrdiff_t) {
    const ptrdiff_t groups = w.K / w.group;
    const uint8_t* codes = w.codes + row * (w.K / 2);
    float sum[kBlockBytes] = {};  // sixteen partial sums: shorter chains, and a loop that compilers vectorise
    for (ptrdiff_t g = 0; g < groups; ++g) {
        const float scale = half_to_float(w.scales[row * groups + g]);
        const int zero = w.zeros[row * groups + g];
        for (ptrdiff_t b = 0; b < w.group / kBlock; ++b, codes += kBlockBytes, x += kBlock)
            for (int j = 0; j < kBlockBytes; ++j) {
                sum[j] += static_cast<float>((codes[j] & 0xF) - zero) * scale * x[j];
                sum[j] += static_cast<float>((codes[j] >> 4) - zero) * scale * x[j + kBlockBytes];
            }
    }
    float total = 0;
    for (float part : sum) total += part;
    *out = total;
}

}  // namespace

const Isa kScalar = {"scalar", {0, 1}, {nullptr, tile}, 1, dequantize};

}  // namespace awqbench
