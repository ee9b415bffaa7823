// Entry points of the CPU kernel: choice of instruction set, division of the work over threads.
//
// Plain C interface: no dependence on torch's C++ ABI. Threads come from OpenMP; the library is linked without an
// OpenMP runtime of its own so that it shares the one torch has loaded (two runtimes would spin against each other).
#include "w4a16.h"

#include <iterator>
#include <vector>

namespace awqbench {
namespace {

const Isa* const kChoices[] = {
    &kScalar,
#if defined(__x86_64__)
    &kAvx2,
    &kAvx512,
#elif defined(__aarch64__)
    &kNeon,
#endif
};

bool supported(int choice) {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (choice == 2)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
               __builtin_cpu_supports("avx512vl") && supported(1);
    if (choice == 1) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#elif defined(__aarch64__)
    if (choice == 1) return true;  // NEON is part of the architecture
#endif
    return choice == 0;
}

// Tiles that take bfloat16 inputs as they are, or null.
const KernelOf<Bfloat>* products(int isa, int width, int64_t group) {
#if defined(AWQBENCH_AVX512_BF16)
    static const bool has_bfloat = __builtin_cpu_supports("avx512bf16");
    if (has_bfloat && kChoices[isa] == &kAvx512 && width == 4 && group % kProductsGroup == 0) return &kAvx512Products;
#endif
    (void)isa, (void)width, (void)group;
    return nullptr;
}

// One linear layer, as the C interface takes it.
struct Packed {
    const uint8_t* codes;
    const uint16_t* scales;
    const uint8_t* zeros;
    const void* bias;  // [N], or null
    int64_t N, K, group;
    int32_t width;     // bits that a code takes: 4 or 8
    int32_t bias_type;
    int32_t isa;

    Weights weights() const { return {codes, scales, zeros, static_cast<ptrdiff_t>(K), static_cast<ptrdiff_t>(group)}; }
};

const Convert& convert(const Isa& isa, Type type) { return type == Type::kBfloat ? isa.bfloat : isa.half; }

// A unit's sums for one input to the output in its type, but for the first `skip`.
void store(const float* sums, ptrdiff_t skip, void* out, Type type, ptrdiff_t at, const Isa& isa) {
    const ptrdiff_t count = kRows - skip;
    if (type == Type::kFloat)
        std::memcpy(static_cast<float*>(out) + at + skip, sums + skip, count * sizeof(float));
    else
        convert(isa, type).narrow(sums + skip, static_cast<uint16_t*>(out) + at + skip, count);
}

// One unit of weight rows times m inputs: out[i * ldo + r].
template <class X>
void multiply_rows(const KernelOf<X>& kernel, const Weights& w, ptrdiff_t row, const X* x, ptrdiff_t m, float* out,
                   ptrdiff_t ldo) {
    for (ptrdiff_t r = 0; r < kRows; r += kernel.width[m]) kernel.tile[m](w, row + r, x, out + r, ldo);
}

template <class X>
void multiply(const KernelOf<X>& kernel, const Isa& isa, const Packed& linear, const X* x, const float* bias, void* out,
              ptrdiff_t M, Type type, int threads) {
    const Weights w = linear.weights();
    const ptrdiff_t N = linear.N, units = (N + kRows - 1) / kRows;
    // Tiles of nearly equal height: 8 inputs are 4 + 4, not 6 + 2.
    const ptrdiff_t tiles = (M + kernel.inputs - 1) / kernel.inputs;
    const auto multiply_unit = [&](ptrdiff_t unit) {
        // The last unit ends with the last row; rows that another unit has are computed again and not stored.
        const ptrdiff_t row = unit * kRows + kRows > N ? N - kRows : unit * kRows, skip = unit * kRows - row;
        const bool in_place = type == Type::kFloat && !skip;
        for (ptrdiff_t t = 0; t < tiles; ++t) {
            const ptrdiff_t begin = M * t / tiles, m = M * (t + 1) / tiles - begin;
            float room[kMaxInputs * kRows];
            float* sums = in_place ? static_cast<float*>(out) + begin * N + row : room;
            const ptrdiff_t ldo = in_place ? N : kRows;
            multiply_rows(kernel, w, row, x + begin * w.K, m, sums, ldo);
            for (ptrdiff_t i = 0; i < m; ++i, sums += ldo) {
                if (bias)
                    for (ptrdiff_t r = 0; r < kRows; ++r) sums[r] += bias[row + r];
                if (!in_place) store(sums, skip, out, type, (begin + i) * N + row, isa);
            }
        }
    };
    if (threads > 1) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (ptrdiff_t unit = 0; unit < units; ++unit) multiply_unit(unit);
    } else {  // not even a parallel region of one thread
        for (ptrdiff_t unit = 0; unit < units; ++unit) multiply_unit(unit);
    }
}

// Memory that a later call uses again, since a decoding step makes hundreds. Aligned, for a load across two cache lines
// costs two.
class Room {
public:
    // `n` numbers of any type as floats: where they lie, or converted.
    const float* floats(const void* numbers, Type type, ptrdiff_t n, const Isa& isa) {
        if (!numbers || type == Type::kFloat) return static_cast<const float*>(numbers);
        float* to = aligned(n);
        convert(isa, type).widen(static_cast<const uint16_t*>(numbers), to, n);
        return to;
    }

    // `n` bfloat16 numbers in the order that products take.
    const Bfloat* arranged(const void* numbers, ptrdiff_t n) {
        constexpr size_t kQuarter = kProductsGroup / 4 * sizeof(Bfloat);
        const char* from = static_cast<const char*>(numbers);
        char* to = reinterpret_cast<char*>(aligned(n / 2));
        for (ptrdiff_t i = 0; i < n; i += kProductsGroup, from += 4 * kQuarter, to += 4 * kQuarter) {
            std::memcpy(to, from, kQuarter);
            std::memcpy(to + kQuarter, from + 2 * kQuarter, kQuarter);
            std::memcpy(to + 2 * kQuarter, from + kQuarter, kQuarter);
            std::memcpy(to + 3 * kQuarter, from + 3 * kQuarter, kQuarter);
        }
        return reinterpret_cast<const Bfloat*>(to - n * sizeof(Bfloat));
    }

private:
    static constexpr uintptr_t kAlignment = 64;
    std::vector<float> room_;

    float* aligned(ptrdiff_t n) {
        const size_t wanted = static_cast<size_t>(n) + kAlignment / sizeof(float);
        if (room_.size() < wanted) room_.resize(wanted);
        const uintptr_t begin = reinterpret_cast<uintptr_t>(room_.data());
        return reinterpret_cast<float*>((begin + kAlignment - 1) / kAlignment * kAlignment);
    }
};

}  // namespace

// The tiles of an instruction set that the processor has, for the other translation units.
const Isa& choice(int isa) { return *kChoices[isa]; }

}  // namespace awqbench

using namespace awqbench;

extern "C" {

// The best instruction set of this processor: 0 scalar; x86: 1 AVX2, 2 AVX-512; ARM: 1 NEON.
int awqbench_w4a16_best_isa() {
    int best = 0;
    for (int choice = 0; choice < static_cast<int>(std::size(kChoices)); ++choice)
        if (supported(choice)) best = choice;
    return best;
}

const char* awqbench_w4a16_isa_name(int isa) { return kChoices[isa]->name; }

// Whether bfloat16 inputs are multiplied as they are, by an instruction for them.
int awqbench_w4a16_products(int isa, int width, int64_t group) { return products(isa, width, group) != nullptr; }

// out [M, N] = x [M, K] times the weight [N, K] transposed, plus the bias; x and out are of one type (0 float, 1
// bfloat16, 2 half), row-major and contiguous. Sums are float. N >= 8, K a multiple of 32.
void awqbench_w4a16_linear(const Packed* linear, const void* x, void* out, int64_t M, int type, int threads) {
    thread_local Room inputs, offsets;
    const Isa& isa = *kChoices[linear->isa];
    const float* bias = offsets.floats(linear->bias, static_cast<Type>(linear->bias_type), linear->N, isa);
    const Type kind = static_cast<Type>(type);
    if (const auto* tiles = kind == Type::kBfloat ? products(linear->isa, linear->width, linear->group) : nullptr) {
        multiply(*tiles, isa, *linear, inputs.arranged(x, M * linear->K), bias, out, M, kind, threads);
    } else {
        const Kernel& kernel = linear->width == 8 ? isa.bytes : isa.nibbles;
        multiply(kernel, isa, *linear, inputs.floats(x, kind, M * linear->K, isa), bias, out, M, kind, threads);
    }
}

// out [rows, K] = the weight rows begin .. begin + rows, as floats.
void awqbench_w4a16_dequantize(const Packed* linear, float* out, int64_t begin, int64_t rows, int threads) {
    const Isa& isa = *kChoices[linear->isa];
    const Weights w = linear->weights();
    const DequantizeRow dequantize = (linear->width == 8 ? isa.bytes : isa.nibbles).dequantize;
    (void)threads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (ptrdiff_t row = 0; row < rows; ++row) dequantize(w, begin + row, out + row * w.K);
}
}
