// Holds a product's kernel, run on the CPU, against float64 on the dequantized weights.
//
// Cases come as lines "values M N K group dtype variant bias padding processors [before residual way]", of which the last
// three are fused_check.h's. `values`: random (scales over three
// decades, x with a few columns of 50 times the rest), integers (the result is exact: bit-equal), onehot (recovers W:
// bit-equal). `padding`: elements between rows of x. `processors`: of the simulated chip.
// Each case runs with blocks and warps in three orders, outputs and partial sums poisoned: the same bits are expected.
// Prints a line per case; the exit status is 1 if one failed, 70 for what the simulation itself caught.
#pragma once

#include <cmath>
#include <functional>
#include <iostream>
#include <sstream>
#include <string>

namespace {

struct Case {
    std::string values;
    int64_t M, N, K, group;
    int dtype, variant, bias, padding, processors;
    int before = 0, residual = 0, way = 0;
};

struct Weights {
    std::vector<uint8_t> codes, zeros;
    std::vector<uint16_t> scales;
    std::vector<uint32_t> tiles;
    std::vector<uint8_t> steps;
    std::vector<double> dense;
};

// A buffer whose neighbours nobody may touch; aligned to 256 bytes as an allocation on a GPU is.
struct Buffer {
    std::vector<char> memory;
    char* data;
    Buffer(std::size_t bytes, bool writable, std::size_t shift = 0, bool constant = false) : memory(bytes + 512, '\xff') {
        data = memory.data() + (256 - reinterpret_cast<uintptr_t>(memory.data()) % 256) + shift;
        simt::allow(data, bytes, writable, true, constant);
    }
    // Of values that are read only; constant: written by no kernel.
    template <class T>
    Buffer(const std::vector<T>& values, bool constant, std::size_t shift = 0)
        : Buffer(values.size() * sizeof(T), false, shift, constant) {
        std::memcpy(data, values.data(), values.size() * sizeof(T));
    }
};

Weights make_weights(const Case& c, std::mt19937& random) {
    using namespace awqbench;
    const int64_t groups = c.K / c.group;
    Weights w;
    w.codes.resize(static_cast<std::size_t>(c.N * c.K));
    w.dense.resize(w.codes.size());
    w.zeros.resize(static_cast<std::size_t>(c.N * groups));
    w.scales.resize(w.zeros.size());
    for (auto& q : w.codes) q = random() % 16;
    for (auto& z : w.zeros) z = random() % 16;
    for (auto& s : w.scales) {
        const double e = c.values == "integers" ? std::exp2(static_cast<int>(random() % 3) - 1)
                                                : std::pow(10., -4 + 3. * (random() % 1000) / 1000);
        s = host::to_bits(kHalf, e);
    }
    w.tiles.assign(static_cast<std::size_t>(tiles_bytes(c.N, c.K) / 4), 0);
    w.steps.assign(static_cast<std::size_t>(steps_bytes(c.N, groups)), 0);
    for (int64_t n = 0; n < c.N; ++n) {
        for (int64_t g = 0; g < groups; ++g) {
            uint8_t* const step = &w.steps[static_cast<std::size_t>(step_byte(n / kTileRows, g, groups))];
            const int row = static_cast<int>(n % kTileRows);
            std::memcpy(step + scale_byte(row), &w.scales[n * groups + g], 2);
            step[zero_byte(row)] |= static_cast<uint8_t>(w.zeros[n * groups + g] << zero_shift(row));
        }
        for (int64_t k = 0; k < c.K; ++k) {
            const Place place = place_of(n, k, k_tiles(c.K));
            w.tiles[place.word] |= static_cast<uint32_t>(w.codes[n * c.K + k]) << 4 * place.nibble;
            const int64_t g = n * groups + k / c.group;
            w.dense[n * c.K + k] = (w.codes[n * c.K + k] - w.zeros[g]) * static_cast<double>(host::to_float(kHalf, w.scales[g]));
        }
    }
    return w;
}

double normal(std::mt19937& random) {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += (random() % 65536 + .5) / 65536;
    return sum;
}

// y, 16 bits [M, N], against x [M, K], rows `stride` apart, times `dense` plus added(m, n). Exactly, or within bounds.
template <class Added>
std::string compare(const Case& c, bool exact, const uint16_t* x, int64_t stride, const std::vector<double>& dense,
                    const Added& added, const char* y) {
    using namespace awqbench;
    double error = 0, norm = 0, worst = 0;
    const double unit = c.dtype == kHalf ? std::exp2(-11) : std::exp2(-8);
    for (int64_t m = 0; m < c.M; ++m)
        for (int64_t n = 0; n < c.N; ++n) {
            double sum = added(m, n), size = std::fabs(sum);
            for (int64_t k = 0; k < c.K; ++k) {
                const double term = host::to_float(c.dtype, x[m * stride + k]) * dense[static_cast<std::size_t>(n * c.K + k)];
                sum += term;
                size += std::fabs(term);
            }
            uint16_t bits;
            std::memcpy(&bits, y + 2 * (m * c.N + n), 2);
            if (exact) {
                const uint16_t expected = host::to_bits(c.dtype, sum);
                if (bits != expected && !(sum == 0 && (bits & 0x7fff) == 0))
                    return "token " + std::to_string(m) + " row " + std::to_string(n) + ": " +
                           std::to_string(host::to_float(c.dtype, bits)) + " is not " + std::to_string(sum);
                continue;
            }
            const double value = host::to_float(c.dtype, bits), difference = std::fabs(value - sum);
            if (!(difference < 1e30)) return "not finite";
            error += difference * difference;
            norm += sum * sum;
            worst = std::max(worst, difference / (unit * std::fabs(sum) + 4 * unit * size / std::sqrt(static_cast<double>(c.K))));
        }
    if (exact) return "exact";
    std::ostringstream text;
    const double relative = std::sqrt(error / norm), limit = c.dtype == kHalf ? 1e-3 : 6e-3;
    text << (relative < limit && worst <= 1 ? "" : "too large: ") << "relative error " << relative << ", worst element "
         << worst << " of its bound";
    return text.str();
}

// x [M, width] with rows `stride` apart and NaN between them, up to the last number of the last row.
std::vector<uint16_t> make_inputs(const Case& c, int64_t width, int64_t stride, std::mt19937& random) {
    using namespace awqbench;
    std::vector<uint16_t> x(static_cast<std::size_t>((c.M - 1) * stride + width), 0xffff);
    std::vector<double> loud(static_cast<std::size_t>(width), 1);
    for (int i = 0; i < 3; ++i) loud[random() % loud.size()] = 50;
    const int64_t shift = static_cast<int64_t>(random() % 1000);
    for (int64_t m = 0; m < c.M; ++m)
        for (int64_t k = 0; k < width; ++k) {
            const double v = c.values == "integers" ? static_cast<int>(random() % 17) - 8
                             : c.values == "onehot" ? (k % c.K == (m * 7 + shift) % c.K)
                                                    : normal(random) * loud[static_cast<std::size_t>(k)];
            x[static_cast<std::size_t>(m * stride + k)] = host::to_bits(c.dtype, v);
        }
    return x;
}

// What is added to results: numbers of their size, or small integers.
std::vector<uint16_t> make_summands(const Case& c, int64_t count, std::mt19937& random) {
    std::vector<uint16_t> all(static_cast<std::size_t>(count));
    for (auto& b : all)
        b = awqbench::host::to_bits(c.dtype, c.values == "random" ? normal(random) : static_cast<int>(random() % 9) - 4);
    return all;
}

void make_chip(const Case& c) {
    using namespace awqbench;
    simulated_device() = {std::abs(c.processors), 227 * 1024, 228 * 1024, true, true};
    if (c.processors < 0) simulated_device() = {-c.processors, 99 * 1024, 100 * 1024, false, false};
}

// A kernel's C function: scratch memory, of which the first bytes are `zeroed` and must be left so; whether it rounds
// weights to x's type, which then is what it is held against; the call.
struct Kernel {
    int64_t scratch_bytes, zeroed;
    bool rounds;
    std::function<int(const void* x, const void* tiles, const void* steps, const void* bias, void* y, void* scratch, int64_t stride)> run;
};

std::string check(const Case& c, const std::function<Kernel()>& kernel_on_chip) {
    using namespace awqbench;
    std::mt19937 random(static_cast<uint32_t>(c.M * 31 + c.N * 17 + c.K * 7 + c.group + c.dtype));
    Weights w = make_weights(c, random);
    const int64_t stride = c.K + c.padding;
    make_chip(c);

    // Odd paddings also move x off its alignment.
    const std::vector<uint16_t> x = make_inputs(c, c.K, stride, random), bias = make_summands(c, c.N, random);

    simt::forget_ranges();
    const std::size_t y_bytes = 2 * static_cast<std::size_t>(c.M * c.N);
    const Buffer x_buffer(x, false, c.padding % 2 * 2), tiles(w.tiles, true), steps(w.steps, true), bias_buffer(bias, false);
    const Buffer y(y_bytes, true);
    const Kernel kernel = kernel_on_chip();
    if (kernel.rounds)
        for (double& weight : w.dense) weight = host::to_float(c.dtype, host::to_bits(c.dtype, weight));
    Buffer scratch(static_cast<std::size_t>(kernel.scratch_bytes), true);
    std::memset(scratch.data, 0, static_cast<std::size_t>(kernel.zeroed));

    std::vector<char> before;
    for (const simt::Order order : {simt::Order::kForward, simt::Order::kBackward, simt::Order::kShuffled}) {
        simt::machine().order = order;
        std::memset(y.data, 0xff, y_bytes);
        std::memset(scratch.data + kernel.zeroed, 0xff, static_cast<std::size_t>(kernel.scratch_bytes - kernel.zeroed));
        const int error = kernel.run(x_buffer.data, tiles.data, steps.data, c.bias ? bias_buffer.data : nullptr, y.data, scratch.data, stride);
        if (error) return "error " + std::to_string(error);
        for (int64_t i = 0; i < kernel.zeroed; ++i)
            if (scratch.data[i] != 0) return "a counter was left at work";
        if (before.empty()) before.assign(y.data, y.data + y_bytes);
        if (std::memcmp(before.data(), y.data, y_bytes) != 0) return "bits depend on the order of blocks";
    }

    const auto added = [&](int64_t, int64_t n) { return c.bias ? host::to_float(c.dtype, bias[static_cast<std::size_t>(n)]) : 0.; };
    return compare(c, c.values != "random", x.data(), stride, w.dense, added, y.data);
}

// Cases from stdin, a line of result for each; the exit status. `fused`: checks those with a norm, a gate or a residual.
int check_all(const std::function<Kernel(const Case&)>& kernel_of, const std::function<std::string(const Case&)>& fused = {}) {
    std::string line;
    int failures = 0;
    while (std::getline(std::cin, line)) {
        std::istringstream in(line);
        Case c;
        if (!(in >> c.values >> c.M >> c.N >> c.K >> c.group >> c.dtype >> c.variant >> c.bias >> c.padding >> c.processors)) {
            std::cerr << "not a case: " << line << "\n";
            return 2;
        }
        in >> c.before >> c.residual >> c.way;
        const bool takes_in = c.before || c.residual || c.way;
        const std::string result = takes_in ? fused(c) : check(c, [&] { return kernel_of(c); });
        const bool good = result.rfind("exact", 0) == 0 || result.rfind("relative", 0) == 0;
        failures += !good;
        std::cout << (good ? "ok   " : "FAIL ") << line << ": " << result << std::endl;
    }
    return failures ? 1 : 0;
}

}  // namespace

