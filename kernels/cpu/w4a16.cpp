// Entry points of the CPU kernel: choice of instruction set, division of the work over threads.
//
// Plain C interface: no dependence on torch's C++ ABI. Threads come from OpenMP; the library is linked without an
// OpenMP runtime of its own so that it shares the one torch has loaded (two runtimes would spin against each other).
#include "w4a16.h"

#include <iterator>

namespace awqbench {
namespace {

const Isa* const kChoices[] = {
    &kScalar,
#if defined(__x86_64__)
    &kAvx2,
    &kAvx512,
#endif
};

bool supported(int choice) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (choice == 2) return __builtin_cpu_supports("avx512f") && supported(1);
    if (choice == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return choice == 0;
}

const Kernel& kernel(int isa, int width) { return width == 8 ? kChoices[isa]->bytes : kChoices[isa]->nibbles; }

void multiply_rows(const Kernel& kernel, const Weights& w, ptrdiff_t row, const float* x, const float* bias, float* out,
                   ptrdiff_t M, ptrdiff_t N) {
    // Tiles of nearly equal height: 8 inputs are 4 + 4, not 6 + 2.
    const ptrdiff_t tiles = (M + kernel.inputs - 1) / kernel.inputs;
    for (ptrdiff_t t = 0; t < tiles; ++t) {
        const ptrdiff_t begin = M * t / tiles, m = M * (t + 1) / tiles - begin;
        for (ptrdiff_t r = row; r < row + kRows; r += kernel.width[m])
            kernel.tile[m](w, r, x + begin * w.K, out + begin * N + r, N);
    }
    if (bias)
        for (ptrdiff_t m = 0; m < M; ++m)
            for (ptrdiff_t r = row; r < row + kRows; ++r) out[m * N + r] += bias[r];
}

}  // namespace

// The tiles of an instruction set that the processor has, for the other translation units.
const Isa& choice(int isa) { return *kChoices[isa]; }

}  // namespace awqbench

using namespace awqbench;

extern "C" {

// The best instruction set of this processor: 0 scalar, 1 AVX2, 2 AVX-512.
int awqbench_w4a16_best_isa() {
    int best = 0;
    for (int choice = 0; choice < static_cast<int>(std::size(kChoices)); ++choice)
        if (supported(choice)) best = choice;
    return best;
}

const char* awqbench_w4a16_isa_name(int isa) { return kChoices[isa]->name; }

// out [M, N] = x [M, K] times the weight [N, K] transposed, plus bias [N] unless null. All row-major and contiguous.
// Codes take `width` bits each: 4 or 8.
void awqbench_w4a16_linear(const float* x, const uint8_t* codes, const uint16_t* scales, const uint8_t* zeros,
                           const float* bias, float* out, int64_t M, int64_t N, int64_t K, int64_t group, int width,
                           int threads, int isa) {
    const Weights w{codes, scales, zeros, K, group};
    const Kernel& chosen = kernel(isa, width);
    const ptrdiff_t units = N / kRows;
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (ptrdiff_t unit = 0; unit < units; ++unit)
        multiply_rows(chosen, w, unit * kRows, x, bias, out, M, N);
}

// out [rows, K] = the weight rows begin .. begin + rows.
void awqbench_w4a16_dequantize(const uint8_t* codes, const uint16_t* scales, const uint8_t* zeros, float* out,
                               int64_t begin, int64_t rows, int64_t K, int64_t group, int width, int threads,
                               int isa) {
    const Weights w{codes, scales, zeros, K, group};
    const Kernel& chosen = kernel(isa, width);
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (ptrdiff_t row = 0; row < rows; ++row) chosen.dequantize(w, begin + row, out + row * K);
}
}
